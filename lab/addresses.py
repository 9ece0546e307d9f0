"""The lab's addresses and ports, the same in every lab: each has a network namespace of its own (docs/lab.md)."""

from lab.spec import LabSpec

LAB_ADDRESS = "10.0.255.1"
"""Where pods reach what the lab itself serves."""

APISERVER_PORT = 6443
ETCD_PORT = 2379
ETCD_PEER_PORT = 2380
CONTROLLER_MANAGER_PORT = 10257
SCHEDULER_PORT = 10259
KUBELET_PORT = 10250
AWS_PORT = 4566

APISERVER_URL = f"https://127.0.0.1:{APISERVER_PORT}"
AWS_URL = f"http://127.0.0.1:{AWS_PORT}"

SERVICE_CIDR = "10.96.0.0/12"
KUBERNETES_SERVICE_ADDRESS = "10.96.0.1"

POD_CIDR = "10.244.0.0/16"
"""Every zone's pods."""


def zone_bridge(index: int) -> str:
    """The bridge that the pods of the zone with this index hang on."""
    return f"zone{index}"


def pod_network(index: int) -> str:
    """The pod addresses of the zone with this index, in CIDR notation."""
    return f"10.244.{64 * index}.0/18"


def zone_gateway(index: int) -> str:
    """The address of the zone's bridge: its pods' default route."""
    return f"10.244.{64 * index}.1"


def set_up_commands(spec: LabSpec) -> str:
    """What `ip -batch` does before anything else starts: the loopback device, service addresses, a bridge per zone."""
    lines = [
        "link set lo up",
        f"addr add {LAB_ADDRESS}/32 dev lo",
        f"route add local {SERVICE_CIDR} dev lo",
    ]
    for index, _ in enumerate(spec.zones):
        bridge = zone_bridge(index)
        lines += [
            # An address of its own: left to itself a bridge takes the lowest of its ports', and pods that know the
            # old one as their gateway's lose their way when that port goes.
            f"link add {bridge} address 02:0a:f4:00:00:{index:02x} type bridge",
            f"addr add {zone_gateway(index)}/18 dev {bridge}",
            f"link set {bridge} up",
        ]
    return "".join(line + "\n" for line in lines)
