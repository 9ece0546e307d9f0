"""Rolls of a lab, seen and started as from outside AWS: launch template versions, executions, reports."""

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import boto3

from lab.lifecycle import LabError
from lab.spec import LabSpec, image_id

if TYPE_CHECKING:
    from mypy_boto3_autoscaling import AutoScalingClient
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_stepfunctions import SFNClient

Json = dict[str, Any]

RECENT = 20
"""Events that tell where an execution is: the last state entered, and the last answer before it."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where one execution is. `since` is when it entered its state (epoch seconds); `reason` is why it waits."""

    name: str
    status: str
    state: str = ""
    reason: str = ""
    since: float = 0.0
    node: str = ""
    instance: str = ""

    @property
    def running(self) -> bool:
        return self.status == "RUNNING"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a roll ended, and its report."""

    roll: str
    status: str
    reason: str
    began: float
    ended: float
    report: Json = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        return self.status == "SUCCEEDED"


class Rolls:
    """The AWS side of a lab, as an operator's machine sees it."""

    def __init__(self, spec: LabSpec, endpoint: str) -> None:
        session = boto3.session.Session(
            region_name=spec.region,
            aws_access_key_id="lab",
            aws_secret_access_key="lab",  # noqa: S106 (any key will do)
        )
        self._spec = spec
        self._stepfunctions: SFNClient = session.client("stepfunctions", endpoint_url=endpoint)
        self._s3: S3Client = session.client("s3", endpoint_url=endpoint)
        self.ec2: EC2Client = session.client("ec2", endpoint_url=endpoint)
        self.autoscaling: AutoScalingClient = session.client("autoscaling", endpoint_url=endpoint)
        self._machines: dict[str, str] = {}

    def machine(self, what: str) -> str:
        """The ARN of a state machine: "roll", "node" or "restore". Raises LabError if nothing is deployed."""
        if what not in self._machines:
            found = self._stepfunctions.list_state_machines()["stateMachines"]
            self._machines = {m["name"].rpartition("-")[2]: m["stateMachineArn"] for m in found}
        if what not in self._machines:
            raise LabError("the application is not deployed in this lab; `python -m lab deploy` does it")
        return self._machines[what]

    def publish_version(self, template: str) -> int:
        """A new version of a launch template, with another AMI; its number. It becomes the latest, not the default."""
        versions = self.ec2.describe_launch_template_versions(LaunchTemplateName=template)["LaunchTemplateVersions"]
        latest = max(v["VersionNumber"] for v in versions)
        answer = self.ec2.create_launch_template_version(
            LaunchTemplateName=template,
            SourceVersion=str(latest),
            LaunchTemplateData={"ImageId": image_id(template, latest + 1)},
        )
        return answer["LaunchTemplateVersion"]["VersionNumber"]

    def start(self, request: Json) -> str:
        """Starts a roll by hand, as from the console; its execution's ARN."""
        answer = self._stepfunctions.start_execution(stateMachineArn=self.machine("roll"), input=json.dumps(request))
        return answer["executionArn"]

    def started_since(self, when: float, *, within_seconds: float = 20.0) -> str:
        """The roll that an event started after `when` (epoch seconds). Raises LabError if none does."""
        deadline = time.monotonic() + within_seconds
        while time.monotonic() < deadline:
            executions = self._stepfunctions.list_executions(stateMachineArn=self.machine("roll"))["executions"]
            fresh = [e for e in executions if e["startDate"].timestamp() >= when - 1]
            if fresh:
                return min(fresh, key=lambda e: e["startDate"])["executionArn"]
            time.sleep(0.2)
        raise LabError(f"no roll started within {within_seconds:.0f} s of the event")

    def stop(self, execution: str, cause: str) -> None:
        """StopExecution, as a person in a hurry would."""
        self._stepfunctions.stop_execution(executionArn=execution, cause=cause)

    def progress(self, execution: str) -> Progress:
        """Where an execution is now."""
        described = self._stepfunctions.describe_execution(executionArn=execution)
        events = self._stepfunctions.get_execution_history(
            executionArn=execution, reverseOrder=True, maxResults=RECENT
        )["events"]
        given = json.loads(described.get("input") or "{}")
        state, since, reason = read_recent([dict(e) for e in events])
        return Progress(
            described["name"],
            described["status"],
            state,
            reason,
            since,
            str(given.get("node", "")),
            str(given.get("instance", "")),
        )

    def nodes_in_flight(self) -> list[Progress]:
        """Every node that is being replaced now, whichever roll it belongs to."""
        executions = self._stepfunctions.list_executions(stateMachineArn=self.machine("node"), statusFilter="RUNNING")[
            "executions"
        ]
        return sorted((self.progress(e["executionArn"]) for e in executions), key=lambda p: p.node)

    def outcome(self, execution: str) -> Outcome:
        """How an execution that has ended did, with its report."""
        described = self._stepfunctions.describe_execution(executionArn=execution)
        report = self.document(described["name"], "report.json")
        stopped = described.get("stopDate") or described["startDate"]
        return Outcome(
            described["name"],
            described["status"],
            str(report.get("reason") or described.get("cause") or ""),
            described["startDate"].timestamp(),
            stopped.timestamp(),
            report,
        )

    def phases(self, execution: str) -> list[tuple[str, float]]:
        """When a roll entered the states that divide it: (name, epoch seconds), in order."""
        divide = {"Plan the roll": "prepare", "Replace nodes": "wave", "Restore": "restore"}
        pages = self._stepfunctions.get_paginator("get_execution_history").paginate(executionArn=execution)
        found: list[tuple[str, float]] = []
        for event in (e for page in pages for e in page["events"]):
            name = event.get("stateEnteredEventDetails", {}).get("name", "")
            if name in divide and not (found and divide[name] == "restore" == found[-1][0]):
                wave = sum(1 for n, _ in found if n.startswith("wave")) + 1
                label = f"wave {wave}" if divide[name] == "wave" else divide[name]
                found.append((label, event["timestamp"].timestamp()))
        return found

    def text(self, roll: str, name: str) -> str:
        """A document of a roll, as it was written; "" if there is none."""
        buckets = [b["Name"] for b in self._s3.list_buckets()["Buckets"] if "reports" in b["Name"]]
        for bucket in buckets:
            key = f"rolls/{roll}/{name}"
            found = self._s3.list_objects_v2(Bucket=bucket, Prefix=key).get("Contents", [])
            if any(item["Key"] == key for item in found):
                return self._s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()
        return ""

    def document(self, roll: str, name: str) -> Json:
        """A JSON document of a roll: plan.json, report.json; {} if there is none."""
        text = self.text(roll, name)
        document: Json = json.loads(text) if text else {}
        return document


def read_recent(events: list[Json]) -> tuple[str, float, str]:
    """State, since when, and why it waits, out of an execution's latest events, newest first."""
    state, since = "", 0.0
    for event in events:
        entered = event.get("stateEnteredEventDetails")
        if entered and not state:
            # "Evict pods: wait" and "Evict pods: done?" belong to the step "Evict pods".
            state, since = entered["name"].partition(":")[0], event["timestamp"].timestamp()
        left = event.get("stateExitedEventDetails")
        if left and event["type"] == "TaskStateExited":
            answer = json.loads(left.get("output") or "{}")
            same = left["name"] == state and answer.get("status") == "wait"
            return state, since, str(answer.get("reason", "")) if same else ""
    return state, since, ""
