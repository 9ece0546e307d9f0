"""Corrections to moto's EC2: launch templates."""

import copy
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import InvalidLaunchTemplateIdNotFound, InvalidParameterValue
from moto.ec2.models.launch_templates import LaunchTemplate
from moto.ec2.responses.launch_templates import LaunchTemplates
from moto.ec2.utils import parse_user_data

from lab.aws.compat.registry import around, correction

_EVERYTHING = 1_000_000
_DEFAULT_PAGE = 200


@correction
def new_versions_start_from_their_source() -> None:
    """AWS copies the launch parameters of SourceVersion that a new version does not give itself; moto ignores it, and
    the new version has no instance type."""

    def create_launch_template_version(original: Any, self: Any) -> Any:
        source = self._get_param("SourceVersion")
        if source:
            name, template_id = self._get_param("LaunchTemplateName"), self._get_param("LaunchTemplateId")
            backend = self.ec2_backend
            template = backend.get_launch_template_by_name(name) if name else backend.get_launch_template(template_id)
            inherited = copy.deepcopy(template.get_version(source).data)
            self.params["LaunchTemplateData"] = inherited | self._get_param("LaunchTemplateData", {})
        return original(self)

    around(LaunchTemplates, "create_launch_template_version", create_launch_template_version)


@correction
def new_versions_may_have_user_data() -> None:
    """AWS launches instances of a version with user data; moto fails to, unless it is the template's first version."""

    def create_version(original: Any, self: Any, data: dict[str, Any], description: str) -> Any:
        return original(self, data | {"UserData": parse_user_data(data.get("UserData"))}, description)

    around(LaunchTemplate, "create_version", create_version)


@correction
def launch_templates_have_pages() -> None:
    """AWS answers up to 200 launch templates or versions and a token for the rest, and refuses an unknown id; moto
    answers 15 without a token, and leaves unknown ids out."""

    def paged(result_key: str) -> Any:
        def describe(original: Any, self: Any) -> Any:
            size = self._get_int_param("MaxResults") or _DEFAULT_PAGE
            start = int(self._get_param("NextToken") or 0)
            for template_id in self._get_param("LaunchTemplateIds", []):
                if template_id not in self.ec2_backend.launch_templates:
                    raise InvalidLaunchTemplateIdNotFound(template_id)
            self.params["MaxResults"] = _EVERYTHING
            everything = original(self).result[result_key]
            answer: dict[str, Any] = {result_key: everything[start : start + size]}
            if start + size < len(everything):
                answer["NextToken"] = str(start + size)
            return ActionResult(answer)

        return describe

    around(LaunchTemplates, "describe_launch_templates", paged("LaunchTemplates"))
    around(LaunchTemplates, "describe_launch_template_versions", paged("LaunchTemplateVersions"))


@correction
def unknown_launch_template_filters_are_refused() -> None:
    """AWS refuses a filter that DescribeLaunchTemplates does not have with InvalidParameterValue; moto breaks."""
    known = ("create-time", "launch-template-name", "tag-key")

    def describe(original: Any, self: Any) -> Any:
        for given in self._get_param("Filters", []):
            if given["Name"] not in known and not given["Name"].startswith("tag:"):
                raise InvalidParameterValue(f"The filter '{given['Name']}' is invalid")
        return original(self)

    around(LaunchTemplates, "describe_launch_templates", describe)
