"""Names that the stack, the steps and the command have in common."""

import hashlib
import re

CLUSTER_TAG_VALUES = ("owned", "shared")
"""What the cluster's tag may say on a group or an instance that is the cluster's."""

MACHINES = ("roll", "node", "restore")


def cluster_tag(cluster: str) -> str:
    """The tag's key by which groups and instances are the cluster's."""
    return f"kubernetes.io/cluster/{cluster}"


def machine_name(cluster: str, what: str) -> str:
    """A state machine's name: 80 characters at most; a cluster's name may have 100."""
    short = cluster if len(cluster) <= 50 else f"{cluster[:42]}-{hashlib.sha256(cluster.encode()).hexdigest()[:7]}"
    return f"eks-rolling-{short}-{what}"


def stack_name(cluster: str) -> str:
    """A stack's name: letters, digits and hyphens, where a cluster's may have underscores too, and be longer than the
    names that CloudFormation makes of it may be. Two clusters never have one name."""
    plain = cluster.replace("_", "-")
    if plain == cluster and len(cluster) <= 80:
        return f"EksRolling-{cluster}"
    return f"EksRolling-{plain[:72].rstrip('-')}-{hashlib.sha256(cluster.encode()).hexdigest()[:7]}"


def shortened(name: str, longest: int) -> str:
    """An execution's name, made to fit: one that is cut ends with a digest of all of it, so that two that begin alike
    stay two. `stacks/state_machine.py` does the same in JSONata."""
    if len(name) <= longest:
        return name
    return f"{name[: longest - DIGEST - 1]}-{hashlib.sha256(name.encode()).hexdigest()[:DIGEST]}"


DIGEST = 10
"""Characters of a digest at the end of a name that was cut."""

ROLL_IN_NODE = 60
"""Characters of a roll's name in those of its Node executions: an instance id has 19, and names hold 80."""


def node_execution_suffix(roll: str) -> str:
    """What follows the instance id in the names of the Node executions of a roll (`stacks/state_machine.py`)."""
    return f"-{shortened(roll, ROLL_IN_NODE)}"


def node_execution_suffix_once(roll: str) -> str:
    """The same of rolls that earlier versions ran: cut without a digest, so that another roll's may be the same."""
    return f"-{roll[:ROLL_IN_NODE]}"


_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def is_object_name(text: str) -> bool:
    """Whether a Kubernetes object may be called so (a DNS subdomain: kubernetes.io, object names)."""
    return _NAME.fullmatch(text) is not None and ".." not in text


def is_label_value(text: str) -> bool:
    """Whether a label may have this value, and a selector may ask for it as it stands."""
    return _LABEL_VALUE.fullmatch(text) is not None
