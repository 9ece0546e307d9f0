"""Images that launch templates name by a parameter of Systems Manager (`resolve:ssm:NAME`), which moto takes for ids.

EC2 looks the parameter up when an instance starts, and for DescribeLaunchTemplateVersions with ResolveAlias (EC2 user
guide, use a Systems Manager parameter to find an AMI).
"""

import copy
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import InvalidParameterValue
from moto.ec2.responses.launch_templates import LaunchTemplates

from lab.aws.account import Account
from lab.aws.compat.registry import around

BY_PARAMETER = "resolve:ssm:"


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
    """Makes moto answer ResolveAlias."""

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
