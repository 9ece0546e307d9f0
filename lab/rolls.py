"""Rolls of a lab, seen and started as from outside AWS: launch template versions, executions, reports."""

import json
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from eks_rolling import state_names
from eks_rolling_cli.execution_history import position
from eks_rolling_cli.executions import Executions
from eks_rolling_cli.roll_state import RollReader
from lab.lifecycle import LabError
from lab.spec import GroupSpec, LabSpec, configuration_name, image_id

if TYPE_CHECKING:
    from mypy_boto3_autoscaling import AutoScalingClient
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_stepfunctions import SFNClient

Json = dict[str, Any]


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
        self._session = boto3.session.Session(
            region_name=spec.region,
            aws_access_key_id="lab",
            aws_secret_access_key="lab",  # noqa: S106 (any key will do)
        )
        self._endpoint = endpoint
        self._spec = spec
        stepfunctions: SFNClient = self.client("stepfunctions")
        self.executions = Executions(stepfunctions)
        self._s3: S3Client = self.client("s3")
        self.ec2: EC2Client = self.client("ec2")
        self.autoscaling: AutoScalingClient = self.client("autoscaling")
        self._machines: dict[str, str] = {}

    def client(self, service: str) -> Any:
        """boto3's client of any service, with an administrator's keys."""
        make: Any = self._session.client
        # Throttled like everybody's, and nobody looks again for it.
        patient = Config(retries={"mode": "standard", "total_max_attempts": 10})
        return make(service, endpoint_url=self._endpoint, config=patient)

    def machine(self, what: str) -> str:
        """The ARN of a state machine: "roll", "node" or "restore". Raises LabError if nothing is deployed."""
        if what not in self._machines:
            self._machines = {name.rpartition("-")[2]: arn for name, arn in self.executions.machines().items()}
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

    def publish_configuration(self, group: GroupSpec) -> str:
        """Gives a group a new launch configuration, with another AMI; its name."""
        described = self.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group.name])
        number = int(described["AutoScalingGroups"][0]["LaunchConfigurationName"].rpartition("-")[2]) + 1
        name = configuration_name(group.name, number)
        self.autoscaling.create_launch_configuration(
            LaunchConfigurationName=name, ImageId=image_id(group.name, number), InstanceType=group.instance_type
        )
        self.autoscaling.update_auto_scaling_group(AutoScalingGroupName=group.name, LaunchConfigurationName=name)
        return name

    def move_image(self, group: GroupSpec) -> str:
        """Has the parameter by which a group's launch template names its image name another one; which."""
        parameters: Any = self.client("ssm")
        name = group.image_parameter
        moved = parameters.get_parameter(Name=name)["Parameter"]["Version"] + 1
        parameters.put_parameter(Name=name, Value=image_id(group.template, moved), Overwrite=True)
        return image_id(group.template, moved)

    def publish_all(self) -> list[str]:
        """Changes everything that the lab's groups launch from; says what, line by line."""
        said = [
            f"group {group.name} has a new launch configuration, {self.publish_configuration(group)}"
            for group in self._spec.groups
            if group.launch_configuration
        ]
        moved = {g.template: g for g in self._spec.groups if g.image_parameter}
        said += [f"parameter {g.image_parameter} names image {self.move_image(g)} now" for g in moved.values()]
        templates = {n for g in self._spec.groups if not g.managed_node_group for n in g.templates} - moved.keys()
        for template in sorted(templates):
            version = self.publish_version(template)
            said.append(f"launch template {template} has a new version, {version}, with another AMI")
        return said

    def start(self, request: Json, machine: str = "roll") -> str:
        """Starts a roll by hand, as from the console, or another machine; its execution's ARN."""
        return self.executions.start(self.machine(machine), f"lab-{uuid.uuid4()}", request)

    def started_since(self, when: float, *, within_seconds: float = 20.0) -> str:
        """The roll that an event started after `when` (epoch seconds). Raises LabError if none does."""
        deadline = time.monotonic() + within_seconds
        while time.monotonic() < deadline:
            if fresh := self.all_since(when):
                return fresh[0]
            time.sleep(0.2)
        raise LabError(f"no roll started within {within_seconds:.0f} s of the event")

    def all_since(self, when: float, machine: str = "roll") -> list[str]:
        """Every execution of a machine that began after `when` (epoch seconds), the first one first."""
        fresh = [e for e in self.executions.of(self.machine(machine)) if e.started >= when - 1]
        return [e.arn for e in sorted(fresh, key=lambda e: e.started)]

    def wait_for_all_since(self, when: float, *, within_seconds: float) -> None:
        """Until every roll that began after `when` (epoch seconds) has ended. Raises LabError if some have not."""
        deadline = time.monotonic() + within_seconds
        while running := [e for e in self.all_since(when) if self.executions.describe(e).status == "RUNNING"]:
            if time.monotonic() > deadline:
                raise LabError(f"not ended within {within_seconds:.0f} s: {', '.join(running)}")
            time.sleep(0.3)

    def stop(self, execution: str, cause: str) -> None:
        """StopExecution, as a person in a hurry would."""
        self.executions.stop(execution, cause)

    def looker(self) -> RollReader:
        """Looks at rolls as the operator's command does."""
        return RollReader(self.executions, self.machine("node"), asked=lambda _: {}, document=self.document)

    def progress(self, execution: str) -> Progress:
        """Where an execution is now."""
        described = self.executions.describe(execution)
        at = position(self.executions.history(execution))
        return Progress(
            described.name,
            described.status,
            at.state,
            at.reason,
            at.entered,
            str(described.input.get("node", "")),
            str(described.input.get("instance", "")),
        )

    def nodes_in_flight(self) -> list[Progress]:
        """Every node that is being replaced now, whichever roll it belongs to."""
        running = self.executions.of(self.machine("node"), "RUNNING")
        return sorted((self.progress(e.arn) for e in running), key=lambda p: p.node)

    def outcome(self, execution: str) -> Outcome:
        """How an execution that has ended did, with its report."""
        described = self.executions.describe(execution)
        report = self.document(described.name, "report.json")
        return Outcome(
            described.name,
            described.status,
            str(report.get("reason") or described.cause),
            described.started,
            described.ended or described.started,
            report,
        )

    def phases(self, execution: str) -> list[tuple[str, float]]:
        """When a roll entered the states that divide it: (name, epoch seconds), in order."""
        divide = {state_names.PLAN: "prepare", state_names.REPLACE_NODES: "wave", state_names.RESTORE: "restore"}
        found: list[tuple[str, float]] = []
        for event in self.executions.history(execution):
            name = event.get("stateEnteredEventDetails", {}).get("name", "")
            if name in divide and not (found and divide[name] == "restore" == found[-1][0]):
                wave = sum(1 for n, _ in found if n.startswith("wave")) + 1
                label = f"wave {wave}" if divide[name] == "wave" else divide[name]
                found.append((label, event["timestamp"]))
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
