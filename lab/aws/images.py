"""Images, of which the account has as many as are asked for, until they are deregistered.

Those that launch templates name by a parameter of Systems Manager (`resolve:ssm:NAME`) moto takes for ids. EC2 looks
the parameter up when an instance starts, and for DescribeLaunchTemplateVersions with ResolveAlias (EC2 user guide, use
a Systems Manager parameter to find an AMI).
"""

import copy
from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import InvalidAMIIdError, InvalidParameterValue
from moto.ec2.responses.amis import AmisResponse
from moto.ec2.responses.launch_templates import LaunchTemplates

from lab.aws.account import Account
from lab.aws.compat.registry import around, replace

BY_PARAMETER = "resolve:ssm:"

_CREATED = datetime(2026, 1, 1, tzinfo=UTC)
"""moto answers nothing for an image without a date."""


def image_now(account: Account, named: str) -> str:
    """The image that a launch template's ImageId stands for now. Raises moto's InvalidParameterValue for a parameter
    that is not there."""
    if not named.startswith(BY_PARAMETER):
        return named
    name = named.removeprefix(BY_PARAMETER)
    parameter = account.parameters.get_parameter(name)
    if parameter is None:
        raise InvalidParameterValue(f"The parameter {name} does not exist.")
    return str(parameter.value)


def install(account: Account) -> None:
    """Makes moto answer ResolveAlias, and know every image that was not deregistered."""
    _install_images(account)

    def describe(original: Any, self: Any) -> Any:
        answer = original(self)
        if str(self._get_param("ResolveAlias", "")).lower() != "true":
            return answer
        result = copy.deepcopy(answer.result)
        for version in result["LaunchTemplateVersions"]:
            data = version["LaunchTemplateData"]
            data["ImageId"] = image_now(account, data.get("ImageId", ""))
        return ActionResult(result)

    around(LaunchTemplates, "describe_launch_template_versions", describe)


def _install_images(account: Account) -> None:
    def describe_images(self: Any) -> Any:
        filters = {f["Name"]: f["Values"] for f in self._get_param("Filters", [])}
        named = self._get_param("ImageIds", [])
        if gone := [image for image in named if image in account.deregistered]:
            raise InvalidAMIIdError(gone)
        asked = named or filters.get("image-id", [])
        there = [image for image in asked if image not in account.deregistered]
        images = [{"ImageId": image, "State": "available", "CreationDate": _CREATED} for image in there]
        return ActionResult({"Images": images})

    def deregister_image(self: Any) -> Any:
        account.deregistered.add(self._get_param("ImageId"))
        return ActionResult({"Return": True})

    replace(AmisResponse, "describe_images", describe_images)
    replace(AmisResponse, "deregister_image", deregister_image)
