"""AWS's ordinary weather, for whole rolls: what a real account does on any day (docs/aws.md)."""

WEATHER = {
    "asleep": {"waking_seconds": 1.5},
    "settling": {"seconds": 2},
    "throttle": {
        "seed": 5,
        "share": 0.05,
        "services": ["autoscaling", "cloudwatch", "ec2", "eks", "elb", "elbv2", "lambda", "s3", "sns"],
    },
    "registration_seconds": 2,
    "refuse": [
        {"action": "autoscaling:SuspendProcesses", "code": "ResourceInUse", "times": 2},
        {"action": "autoscaling:TerminateInstanceInAutoScalingGroup", "code": "ScalingActivityInProgress", "times": 5},
    ],
    "no_capacity": {"times": 1},
    "duplicate_events": True,
}
"""Every function sleeps for 1.5 s from its first call; 5 % of all calls are throttled; one launch finds no capacity."""
