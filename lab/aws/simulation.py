"""IAM's simulator, which moto lacks: what a role may call, and whether the organization lets it."""

from typing import Any

from moto.core.responses import ActionResult
from moto.iam.responses import IamResponse

from lab.aws.policies import Policies

Json = dict[str, Any]


def install(policies: Policies) -> None:
    """Adds SimulatePrincipalPolicy to moto's IAM, for actions on no named resource."""

    def simulate_principal_policy(self: Any) -> Any:
        role = self._get_param("PolicySourceArn")
        return ActionResult(
            {"EvaluationResults": [_judged(policies, role, a) for a in _actions(self)], "IsTruncated": False}
        )

    IamResponse.simulate_principal_policy = simulate_principal_policy


def _actions(response: Any) -> list[str]:
    return list(response._get_param("ActionNames", []))  # noqa: SLF001 (moto's way to read a parameter)


def _judged(policies: Policies, role: str, action: str) -> Json:
    denied = policies.denied_by_organization(action)
    allowed = policies.allows_anywhere(role, action)
    return {
        "EvalActionName": action,
        "EvalResourceName": "*",
        "EvalDecision": "explicitDeny" if denied else "allowed" if allowed else "implicitDeny",
        "MatchedStatements": [],
        "MissingContextValues": [],
        "OrganizationsDecisionDetail": {"AllowedByOrganizations": not denied},
    }
