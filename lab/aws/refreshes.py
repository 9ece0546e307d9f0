"""Instance refreshes, which moto lacks: they can be started, seen and cancelled, so that a plan that looks for one
finds it. They replace nothing."""

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from moto.autoscaling.exceptions import AutoscalingClientError
from moto.autoscaling.responses import AutoScalingResponse
from moto.core.responses import ActionResult

_IN_PROGRESS, _CANCELLED = "InProgress", "Cancelled"


@dataclass
class Refresh:
    """An instance refresh, with the fields that DescribeInstanceRefreshes shows."""

    instance_refresh_id: str
    auto_scaling_group_name: str
    status: str = _IN_PROGRESS
    percentage_complete: int = 0
    instances_to_update: int = 0
    start_time: datetime = field(default_factory=lambda: datetime.now(tz=UTC))


def install() -> None:
    """Adds the three operations to moto's Auto Scaling API."""
    refreshes: dict[str, list[Refresh]] = {}
    ids = itertools.count(1)

    def of(response: Any) -> list[Refresh]:
        name = response.params["AutoScalingGroupName"]
        group = response.autoscaling_backend.autoscaling_groups[name]
        return refreshes.setdefault(group.name, [])

    def start_instance_refresh(self: Any) -> Any:
        known = of(self)
        if any(refresh.status == _IN_PROGRESS for refresh in known):
            raise AutoscalingClientError("InstanceRefreshInProgress", "An Instance Refresh is already in progress")
        refresh = Refresh(f"00000000-0000-0000-0000-{next(ids):012}", self.params["AutoScalingGroupName"])
        known.insert(0, refresh)
        return ActionResult({"InstanceRefreshId": refresh.instance_refresh_id})

    def describe_instance_refreshes(self: Any) -> Any:
        return ActionResult({"InstanceRefreshes": of(self)})

    def cancel_instance_refresh(self: Any) -> Any:
        for refresh in of(self):
            if refresh.status == _IN_PROGRESS:
                refresh.status = _CANCELLED
                return ActionResult({"InstanceRefreshId": refresh.instance_refresh_id})
        raise AutoscalingClientError("ActiveInstanceRefreshNotFound", "No in progress Instance Refresh found")

    for operation in (start_instance_refresh, describe_instance_refreshes, cancel_instance_refresh):
        setattr(AutoScalingResponse, operation.__name__, operation)
