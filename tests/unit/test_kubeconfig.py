"""A person's kubeconfig: which contexts there are, what they are for, how they sign in."""

from pathlib import Path

import pytest

from eks_rolling.clients.kubeconfig import connect, contexts
from eks_rolling.errors import AccessDenied, BadRequest

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: tunnel
contexts:
- {name: production, context: {cluster: "arn:aws:eks:eu-central-1:1:cluster/production", user: production}}
- {name: tunnel, context: {cluster: tunnel, user: token}}
- {name: expired, context: {cluster: tunnel, user: expired}}
clusters:
- {name: "arn:aws:eks:eu-central-1:1:cluster/production", cluster: {server: "https://a.eks.amazonaws.com"}}
- {name: tunnel, cluster: {server: "https://127.0.0.1:6443/", insecure-skip-tls-verify: true}}
users:
- name: production
  user: {exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: aws, args: [--cluster-name, prod]}}
- {name: token, user: {token: secret}}
- {name: expired, user: {exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: "false"}}}
"""


@pytest.fixture
def kubeconfig(tmp_path: Path) -> str:
    file = tmp_path / "config"
    file.write_text(KUBECONFIG)
    return str(file)


def test_contexts_say_where_they_go_and_which_eks_cluster_they_name(kubeconfig: str) -> None:
    told = [(c.name, c.server, c.cluster, c.current) for c in contexts(kubeconfig)]
    assert told == [
        ("tunnel", "https://127.0.0.1:6443", "", True),
        ("production", "https://a.eks.amazonaws.com", "prod", False),
        ("expired", "https://127.0.0.1:6443", "", False),
    ]


def test_several_files_are_merged_as_kubectl_does(kubeconfig: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text(
        "contexts: [{name: more, context: {cluster: more, user: token}}]\n"
        "clusters: [{name: more, cluster: {server: 'https://more'}}]\n"
    )
    assert [c.name for c in contexts(f"{kubeconfig}:{other}")] == ["tunnel", "production", "expired", "more"]


def test_no_kubeconfig_is_no_fault(tmp_path: Path) -> None:
    assert contexts(str(tmp_path / "none")) == []


def test_a_broken_kubeconfig_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text("contexts: {")
    with pytest.raises(BadRequest, match=f"The kubeconfig {file} cannot be read"):
        contexts(str(file))


def test_a_sign_in_that_fails_says_what_its_plugin_said(kubeconfig: str) -> None:
    with pytest.raises(AccessDenied, match=r"The context expired of .* gives no credentials .*sign in to AWS again"):
        connect(kubeconfig, "expired")


def test_an_unknown_context_is_named(kubeconfig: str) -> None:
    with pytest.raises(BadRequest, match=r"The context staging of .* cannot be used"):
        connect(kubeconfig, "staging")
