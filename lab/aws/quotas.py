"""The account's quota of on-demand instances, of which moto knows nothing: as much as the lab's spec says."""

from typing import Any

from moto.servicequotas.models import ServiceQuotasBackend

from lab.aws.compat.registry import around

CODE = "L-1216C47A"
"""Running On-Demand Standard instances, in vCPUs (Service Quotas, EC2)."""


def install(vcpus: int) -> None:
    def get_service_quota(original: Any, self: Any, service_code: str, quota_code: str) -> Any:
        if (service_code, quota_code) != ("ec2", CODE):
            return original(self, service_code=service_code, quota_code=quota_code)
        return {"ServiceCode": service_code, "QuotaCode": quota_code, "Value": float(vcpus), "Adjustable": True}

    around(ServiceQuotasBackend, "get_service_quota", get_service_quota)
