from tests.lab_fixtures import _kubelet, cluster, control_plane
from tests.node_lab import node_lab, nodes

__all__ = ["_kubelet", "cluster", "control_plane", "node_lab", "nodes"]
