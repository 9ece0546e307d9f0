"""The account's quotas, of which moto knows nothing: of on-demand instances as much as the lab's spec says."""

from typing import Any

from moto.servicequotas.models import ServiceQuotasBackend

from lab.aws.compat.registry import around

CODE = "L-1216C47A"
"""Running On-Demand Standard instances, in vCPUs (Service Quotas, EC2)."""

FUNCTIONS = "L-B99A9384"
"""Concurrent executions (Service Quotas, AWS Lambda): what AWS gives an account that has asked for nothing."""

CONCURRENT = 1000


def install(vcpus: int) -> None:
    values = {("ec2", CODE): vcpus, ("lambda", FUNCTIONS): CONCURRENT}

    def get_service_quota(original: Any, self: Any, service_code: str, quota_code: str) -> Any:
        if (service_code, quota_code) not in values:
            return original(self, service_code=service_code, quota_code=quota_code)
        value = float(values[service_code, quota_code])
        return {"ServiceCode": service_code, "QuotaCode": quota_code, "Value": value, "Adjustable": True}

    around(ServiceQuotasBackend, "get_service_quota", get_service_quota)
