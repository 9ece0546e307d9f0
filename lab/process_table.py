"""Which processes a lab consists of: the table of docs/lab.md as data."""

import sys

from lab.addresses import AWS_URL
from lab.controlplane import start as control_plane
from lab.parts import Part
from lab.paths import LabPaths
from lab.spec import LabSpec


def process_table(paths: LabPaths, spec: LabSpec) -> list[Part]:
    """The parts that this lab runs. Raises ValueError if the spec names one that there is not."""
    table = [
        *control_plane.parts(paths, spec),
        Part(
            "aws-server",
            _module("lab.aws.server", paths),
            ready_url=f"{AWS_URL}/_lab/instances",
        ),
        Part(
            "node-agent",
            _module("lab.node.agent", paths),
            after=("kube-apiserver", "aws-server"),
            # It ends every pod's processes, which have grace periods of their own.
            stop_seconds=5.0,
        ),
        Part("heartbeats", _module("lab.node.heartbeat", paths), after=("kube-apiserver",)),
        Part("service-proxy", _module("lab.network.proxy", paths), after=("kube-apiserver", "aws-server")),
    ]
    if spec.parts is None:
        return table
    names = {part.name for part in table}
    if unknown := [name for name in spec.parts if name not in names]:
        raise ValueError(f"unknown parts {unknown}; a lab has {sorted(names)}")
    return [part for part in table if part.name in spec.parts]


def _module(name: str, paths: LabPaths) -> tuple[str, ...]:
    return (sys.executable, "-m", name, str(paths.root))
