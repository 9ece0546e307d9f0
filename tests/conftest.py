from tests.lab_fixtures import _kubelet, cluster, control_plane

__all__ = ["_kubelet", "cluster", "control_plane"]
