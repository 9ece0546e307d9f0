"""Permissions that are granted and that no end-to-end roll uses, each with its reason. A stale one fails the walk."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from eks_rolling.report.messages import HOLDING


@dataclass(frozen=True)
class Exempt:
    """`who` and `what` are patterns: a step, role or Kubernetes group; an action, verb and resource, or a step's group.

    `sometimes` is for what some rolls use and others do not, as it goes: it is never stale.
    """

    who: str
    what: str
    reason: str
    sometimes: bool = False

    def covers(self, who: str, what: str) -> bool:
        return fnmatchcase(who, self.who) and fnmatchcase(what, self.what)

    def __str__(self) -> str:
        return f'Exempt("{self.who}", "{self.what}", ...)'


EXEMPT: tuple[Exempt, ...] = (
    Exempt("*", "xray:*", "the Lambda and Step Functions services send traces themselves; the lab traces nothing"),
    Exempt("*", "logs:*", "the Lambda and Step Functions services write logs themselves; in the lab logs are files"),
    Exempt("*", "kms:*", "SNS asks the key in the name of who publishes; the lab's messages are not encrypted"),
    Exempt("Roll*MachineRole", "events:*", "Step Functions itself watches nested executions so, and lets them end"),
    *(
        Exempt(step, what, "arranges again what somebody changed in mid-roll; no lab's roll meets that", sometimes=True)
        for step in ("health_gate", "launch_replacement")
        for what in (
            "autoscaling:CreateOrUpdateTags",
            "autoscaling:SuspendProcesses",
            "autoscaling:UpdateAutoScalingGroup",
        )
    ),
    *(
        Exempt(
            step, "sns:Publish", "for a hold longer than notify_hold_minutes, of which a lab has few", sometimes=True
        )
        for step in sorted({*HOLDING, "migrate_cluster", "migrate_sentinel"})
    ),
    Exempt(
        "Roll*MachineRole", "states:DescribeExecution", "the lab's Step Functions looks at nested executions inside"
    ),
    Exempt("Roll*MachineRole", "states:StopExecution", "the lab's Step Functions stops nested executions inside"),
    Exempt(
        "restore",
        "elasticloadbalancing:DeregisterInstancesFromLoadBalancer",
        "a replacement given back when a classic load balancer has it already; contract tests of the client do it",
    ),
    *(
        Exempt(
            "restore",
            what,
            "asks a dead step's launch request again; only where the step died with its request on the way",
            sometimes=True,
        )
        for what in ("autoscaling:LaunchInstances", "ec2:CreateFleet", "ec2:DescribeLaunchTemplateVersions")
    ),
    Exempt(
        "await_load_balancers",
        "elasticloadbalancing:Describe*",
        "whether a target still drains, and so is looked at, is a matter of seconds",
        sometimes=True,
    ),
    Exempt(
        "terminate",
        "elasticloadbalancing:Describe*",
        "looks anew at what was left before; only an instance that somebody registered again has more to look at",
        sometimes=True,
    ),
    *(
        Exempt(
            "put_back_version",
            what,
            "Auto Scaling asks for it of whoever sets a group's version number, and launches nothing by it",
            sometimes=True,
        )
        for what in ("ec2:RunInstances", "ec2:CreateTags", "iam:PassRole")
    ),
    Exempt(
        "put_back_version",
        "autoscaling:DescribeLaunchConfigurations",
        "no lab's roll goes back to a launch configuration; the model's do",
    ),
    Exempt(
        "replace_unjoined",
        "elasticloadbalancing:*",
        "what never joined may be registered with no balancer, or with a target group alone",
        sometimes=True,
    ),
    Exempt(
        "eks-rolling-evict",
        "delete poddisruptionbudgets",
        "a temporary budget gives way to one that somebody makes during the roll; model tests do it",
        sometimes=True,
    ),
    Exempt(
        "health_gate",
        "eks-rolling-nodes",
        "taints a node again that somebody untainted in mid-roll; tests/hostile/test_looked_again.py does it",
        sometimes=True,
    ),
)

NAMED_BY_TESTS = frozenset({"redis-none", "redis-wrong"})
"""Secrets that tests of bad input make the plan ask for."""
