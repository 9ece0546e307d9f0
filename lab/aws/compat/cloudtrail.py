"""Corrections to moto's CloudTrail."""

from typing import Any

from moto.cloudtrail.models import Trail

from lab.aws.compat.registry import around, correction


@correction
def a_new_trail_records_management_events() -> None:
    """AWS has a trail without selectors of its own record all management events, and answers so; moto answers none."""

    def selectors(original: Any, self: Any) -> Any:
        basic, advanced = original(self)
        if not basic and not advanced:
            basic = [{"ReadWriteType": "All", "IncludeManagementEvents": True, "DataResources": []}]
        return basic, advanced

    around(Trail, "get_event_selectors", selectors)
