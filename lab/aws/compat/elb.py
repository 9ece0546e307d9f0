"""Corrections to moto's classic load balancers."""

from collections.abc import Iterable
from typing import Any

from moto.elb.models import ELBBackend

from lab.aws.compat.registry import around, correction


@correction
def an_instance_is_registered_once() -> None:
    """AWS leaves an instance that is registered as it is; moto registers it a second time."""

    def register(original: Any, self: Any, name: str, instances: Iterable[str], *rest: Any, **more: Any) -> Any:
        known = set(self.get_load_balancer(name).instance_ids)
        return original(self, name, [i for i in instances if i not in known], *rest, **more)

    around(ELBBackend, "register_instances", register)
