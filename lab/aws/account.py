"""The one account of a lab, and moto's backends of its region."""

from dataclasses import dataclass, field
from typing import Any

from moto.backends import get_backend
from moto.stepfunctions.parser.models import stepfunctions_parser_backends

from lab.aws import ACCOUNT_ID


@dataclass(frozen=True)
class Account:
    """The lab's account in the lab's region."""

    region: str
    deregistered: set[str] = field(default_factory=set, compare=False)
    """Images that were."""

    @property
    def autoscaling(self) -> Any:
        return self._regional("autoscaling")

    @property
    def ec2(self) -> Any:
        return self._regional("ec2")

    @property
    def eks(self) -> Any:
        return self._regional("eks")

    @property
    def elb(self) -> Any:
        """Classic load balancers."""
        return self._regional("elb")

    @property
    def elbv2(self) -> Any:
        return self._regional("elbv2")

    @property
    def events(self) -> Any:
        return self._regional("events")

    @property
    def functions(self) -> Any:
        return self._regional("lambda")

    @property
    def parameters(self) -> Any:
        """Systems Manager's."""
        return self._regional("ssm")

    @property
    def sns(self) -> Any:
        return self._regional("sns")

    @property
    def states(self) -> Any:
        """Step Functions, in the backend that executes state machines."""
        return stepfunctions_parser_backends[ACCOUNT_ID][self.region]

    @property
    def iam(self) -> Any:
        return self._global("iam")

    @property
    def sts(self) -> Any:
        return self._global("sts")

    def role_arn(self, name: str) -> str:
        return f"arn:aws:iam::{ACCOUNT_ID}:role/{name}"

    def _regional(self, service: Any) -> Any:
        return get_backend(service)[ACCOUNT_ID][self.region]

    def _global(self, service: Any) -> Any:
        return get_backend(service)[ACCOUNT_ID]["aws"]
