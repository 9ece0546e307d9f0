"""Where moto answers otherwise than AWS would, and a roll would notice: one function per correction."""

from lab.aws.compat import ec2, elb, events, executions, scaling, states, tasks
from lab.aws.compat.registry import CORRECTIONS, apply

__all__ = ["CORRECTIONS", "apply", "ec2", "elb", "events", "executions", "scaling", "states", "tasks"]
