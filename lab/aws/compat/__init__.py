"""Where moto answers otherwise than AWS would, and a roll would notice: one function per correction."""

from lab.aws.compat import cloudtrail, ec2, elb, events, executions, functions, scaling, states, tasks
from lab.aws.compat.registry import CORRECTIONS, apply

__all__ = [
    "CORRECTIONS",
    "apply",
    "cloudtrail",
    "ec2",
    "elb",
    "events",
    "executions",
    "functions",
    "scaling",
    "states",
    "tasks",
]
