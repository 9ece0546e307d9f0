"""Which cluster, region and way in are taken: of options, environment and kubeconfig, never another cluster's."""

from pathlib import Path
from typing import Any

import pytest

from eks_rolling_cli.exits import CommandError, Exit
from eks_rolling_cli.target import Options, Target

KUBECONFIG = """
current-context: {current}
contexts:
- {{name: production, context: {{cluster: "arn:aws:eks:eu-central-1:1:cluster/production", user: u}}}}
- {{name: staging, context: {{cluster: staging, user: u}}}}
- {{name: tunnel, context: {{cluster: tunnel, user: u}}}}
clusters:
- {{name: "arn:aws:eks:eu-central-1:1:cluster/production", cluster: {{server: "https://A.gr7.eu-west-3.eks.amazonaws.com"}}}}
- {{name: staging, cluster: {{server: "https://B.gr7.eu-west-3.eks.amazonaws.com"}}}}
- {{name: tunnel, cluster: {{server: "https://127.0.0.1:6443"}}}}
users:
- {{name: u, user: {{token: t}}}}
"""


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No settings of whoever runs the tests; a kubeconfig whose current context is production."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "EKS_ROLLING_CLUSTER"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    file = tmp_path / "config"
    file.write_text(KUBECONFIG.format(current="production"))
    monkeypatch.setenv("KUBECONFIG", str(file))
    return file


def endpoint_is(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    def describe(cluster: str, session: Any) -> dict[str, str]:
        return {"name": cluster, "endpoint": endpoint}

    monkeypatch.setattr("eks_rolling.clients.eks.describe", describe)


def test_the_option_is_asked_before_the_environment_and_that_before_the_context(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Target(Options()).cluster == "production"
    monkeypatch.setenv("EKS_ROLLING_CLUSTER", "other")
    assert Target(Options()).cluster == "other"
    assert Target(Options(cluster="mine")).cluster == "mine"


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_either_variable_says_the_region_and_the_option_goes_first(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "eu-north-1")
    assert Target(Options()).region == "eu-north-1"
    assert Target(Options(region="eu-south-1")).region == "eu-south-1"


def test_without_any_the_region_is_that_of_the_contexts_endpoint() -> None:
    assert Target(Options()).region == "eu-west-3"


def test_no_region_is_a_usage_error(nothing_else: Path) -> None:
    nothing_else.write_text(KUBECONFIG.format(current="tunnel"))
    with pytest.raises(CommandError, match="No region is set") as raised:
        _ = Target(Options()).region
    assert raised.value.code is Exit.USAGE


def test_a_context_is_taken_only_if_it_goes_to_the_clusters_own_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint_is(monkeypatch, "https://B.gr7.eu-west-3.eks.amazonaws.com")
    chosen = Target(Options(cluster="staging")).chosen_context
    assert chosen is not None
    assert chosen.name == "staging"
    endpoint_is(monkeypatch, "https://C.gr7.eu-west-3.eks.amazonaws.com")
    assert Target(Options(cluster="third")).chosen_context is None


def test_a_context_that_was_asked_for_is_taken_as_it_is() -> None:
    chosen = Target(Options(cluster="production", context="tunnel")).chosen_context
    assert chosen is not None
    assert chosen.server == "https://127.0.0.1:6443"


def test_an_unknown_context_names_those_that_there_are() -> None:
    with pytest.raises(CommandError, match="has no context nope; there are: production, staging, tunnel"):
        _ = Target(Options(cluster="production", context="nope")).chosen_context


def test_an_unknown_profile_is_a_usage_error() -> None:
    with pytest.raises(CommandError, match="correct --profile") as raised:
        _ = Target(Options(profile="nope")).session
    assert raised.value.code is Exit.USAGE
