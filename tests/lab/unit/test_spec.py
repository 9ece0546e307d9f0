from pathlib import Path

import pytest
from pydantic import ValidationError

from lab import addresses
from lab.paths import REPOSITORY
from lab.spec import GroupSpec, LabSpec

YAML = """
cluster: shop
zones: [eu-central-1a, eu-central-1b, eu-central-1c]
target_groups:
  - {name: web, node_port: 30080, listener_port: 80, health_path: /healthz}
groups:
  - {name: workers, zones: [eu-central-1a, eu-central-1c], size: 2, target_groups: [web]}
delays: {boot: 1.5}
"""


def test_a_spec_survives_being_saved(tmp_path: Path) -> None:
    written = tmp_path / "lab.yaml"
    written.write_text(YAML)
    spec = LabSpec.from_yaml(written)

    spec.save(tmp_path / "spec.json")

    assert LabSpec.load(tmp_path / "spec.json") == spec
    assert spec.delays.boot == 1.5
    assert spec.groups[0].max_size == 2


@pytest.mark.parametrize(
    ("yaml", "problem"),
    [
        ("zones: [a, b, c, d, e]", "a lab has room for four zones"),
        ("groups: [{name: g, zones: [mars], size: 1}]", "group g: unknown zones ['mars']"),
        ("groups: [{name: g, zones: [eu-central-1a], size: 1, target_groups: [x]}]", "unknown target groups ['x']"),
        (
            "zones: [a]\ngroups: [{name: g, zones: [a], size: 1, launch_configuration: true, launch_template: t}]",
            "a launch configuration goes with no launch template",
        ),
        (
            "zones: [a]\ngroups: [{name: g, zones: [a], size: 1, target_groups: [t]}]\n"
            "target_groups: [{name: t, node_port: 1, listener_port: 2, pods_of: shop/web}]",
            "target groups ['t'] are of addresses",
        ),
        ("colour: blue", "Extra inputs are not permitted"),
        ("groups: [{name: g, zones: [], size: -1}]", "greater than or equal to 0"),
    ],
)
def test_a_wrong_spec_is_refused_with_a_reason(tmp_path: Path, yaml: str, problem: str) -> None:
    written = tmp_path / "lab.yaml"
    written.write_text(yaml)

    with pytest.raises(ValidationError) as refusal:
        LabSpec.from_yaml(written)

    assert problem in str(refusal.value)


def test_an_empty_file_is_the_default_lab(tmp_path: Path) -> None:
    written = tmp_path / "lab.yaml"
    written.write_text("")
    assert LabSpec.from_yaml(written) == LabSpec()


def test_a_group_may_grow_beyond_its_size() -> None:
    assert GroupSpec(name="g", zones=(), size=2, max=5).max_size == 5


def test_every_zone_has_a_bridge_and_pod_addresses_of_its_own() -> None:
    commands = addresses.set_up_commands(LabSpec(zones=("a", "b", "c", "d"))).splitlines()

    for index, network in enumerate(("10.244.0", "10.244.64", "10.244.128", "10.244.192")):
        assert f"link add zone{index} address 02:0a:f4:00:00:0{index} type bridge" in commands
        assert f"addr add {network}.1/18 dev zone{index}" in commands
        assert addresses.pod_network(index) == f"{network}.0/18"


@pytest.mark.parametrize("file", sorted((REPOSITORY / "lab" / "clusters").glob("*.yaml")), ids=lambda f: f.stem)
def test_what_a_cluster_that_ships_is_made_of_is_there(file: Path) -> None:
    spec = LabSpec.from_yaml(file)
    for manifest in (*spec.manifests, *spec.meanwhile.begins):
        assert (REPOSITORY / manifest).exists(), manifest
