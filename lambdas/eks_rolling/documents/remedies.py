"""What to type once a roll has left something behind: one command, the same wherever a roll's end is reported. Pure.

A next roll is always safe: it shows its plan and asks, takes over every mark that the last one left, finishes what was
half done, and puts everything back at its end; with no node outdated it does the last alone. Changing sizes or
instances by hand is not: Auto Scaling obeys a lower size by ending instances undrained. What no roll changes has
commands of its own.
"""

from shlex import quote


def typed(*words: str, cluster: str, region: str = "") -> str:
    """A complete command: operators may work on several clusters, in several regions."""
    where = [f"--cluster {cluster}"] if cluster else []
    where += [f"--region {region}"] if region else []
    return " ".join(("eks-rolling", *words, *where))


def way_out(start: str) -> str:
    """The remedy for whatever a roll, an abort or a restore left behind, as a sentence; `start` is the command."""
    return f"`{start}` shows a plan and asks; that roll finishes what is half done, and puts everything back"


def ended_by_hand(node: str, instance: str) -> str:
    """The commands by which a person ends an instance that is in its group. Its group is asked to go with one less:
    without that it would launch another; AWS refuses that below its minimum size. A drain hands over no role of a Redis
    group."""
    return (
        f"`kubectl drain {node} --ignore-daemonsets --delete-emptydir-data` (not with a pod of a Redis group on it), "
        f"then `aws autoscaling terminate-instance-in-auto-scaling-group --instance-id {instance} "
        "--should-decrement-desired-capacity`; if the group is at its minimum size, lower that by one first"
    )


def back_in_service(instance: str, group: str) -> str:
    """The command that ends an instance's standby. A group's name may be any text."""
    return f"`aws autoscaling exit-standby --instance-ids {instance} --auto-scaling-group-name {quote(group)}`"
