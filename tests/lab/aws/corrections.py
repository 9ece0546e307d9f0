"""What AWS does and moto, as installed, does not: one probe or more for each correction in `lab.aws.compat`.

`python -m tests.lab.aws.corrections` runs every probe twice, each time in a process of its own: with all
corrections, where it has to succeed, and without the one it is for, where it has to fail. It prints a JSON object for
each run. A probe that succeeds without its correction says that moto has caught up.
"""

import gc
import importlib
import io
import json
import logging
import os
import signal
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests import waiting

REGION = "eu-central-1"
ROLE = "arn:aws:iam::123456789012:role/probe"
PROBES: dict[str, tuple[str, Callable[["Aws"], None]]] = {}
_RUN_SECONDS = 30.0
_LONGEST_SECONDS = 30
_AT_ONCE = 2
_CONFIG: Any = {"stepfunctions": {"execute_state_machine": True}, "core": {"reset_boto3_session": False}}


def shows(correction: str) -> Callable[[Callable[["Aws"], None]], Callable[["Aws"], None]]:
    """Registers a probe for a correction."""

    def register(probe: Callable[[Aws], None]) -> Callable[[Aws], None]:
        PROBES[probe.__name__] = (correction, probe)
        return probe

    return register


@dataclass(frozen=True)
class Ended:
    """How an execution ended; `output` is what its JSON says."""

    arn: str
    status: str
    output: Any
    error: str | None
    cause: str | None


class Aws:
    """boto3 clients of moto in this process, and what the probes do with them."""

    def __init__(self) -> None:
        import boto3

        os.environ.update(AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret", AWS_DEFAULT_REGION=REGION)
        session: Any = boto3
        names = ("stepfunctions", "autoscaling", "ec2", "eks", "elb", "sns", "lambda", "iam", "s3", "cloudtrail")
        clients: dict[str, Any] = {name: session.client(name) for name in names}
        self.states, self.autoscaling, self.ec2, self.eks, self.elb, self.sns = list(clients.values())[:6]
        self.lambda_, self.iam, self.s3, self.cloudtrail = list(clients.values())[6:]

    def machine(self, states: dict[str, Any], language: str = "JSONata", **more: Any) -> str:
        """A state machine that starts at the first of its states."""
        definition = {"QueryLanguage": language, "StartAt": next(iter(states)), "States": states, **more}
        name = f"machine-{time.time_ns()}"
        made = self.states.create_state_machine(name=name, definition=json.dumps(definition), roleArn=ROLE)
        return str(made["stateMachineArn"])

    def start(self, machine: str, given: Any = None) -> str:
        return str(self.states.start_execution(stateMachineArn=machine, input=json.dumps(given or {}))["executionArn"])

    def ended(self, execution: str) -> Ended:
        """Waits for an execution's end."""
        described: dict[str, Any] = {}

        def done() -> bool:
            described.update(self.states.describe_execution(executionArn=execution))
            return bool(described["status"] != "RUNNING")

        until(done, "the execution has ended")
        output = json.loads(described["output"]) if "output" in described else None
        return Ended(execution, described["status"], output, described.get("error"), described.get("cause"))

    def run(self, states: dict[str, Any], given: Any = None, **more: Any) -> Ended:
        return self.ended(self.start(self.machine(states, **more), given))

    def history(self, execution: str, kind: str) -> list[dict[str, Any]]:
        """The execution's events of a kind."""
        events = self.states.get_execution_history(executionArn=execution, maxResults=1000)["events"]
        return [event for event in events if event["type"] == kind]

    def token(self, execution: str) -> str:
        """The task token that the execution's `waits_for_token` waits for."""
        until(lambda: bool(self.history(execution, "TaskSubmitted")), "the task waits for its token")
        (scheduled,) = self.history(execution, "TaskScheduled")
        return str(json.loads(scheduled["taskScheduledEventDetails"]["parameters"])["Message"])

    def group(self, **more: Any) -> str:
        """An Auto Scaling group of one instance, at most two, with a launch template of the same name."""
        name = f"group-{time.time_ns()}"
        self.ec2.create_launch_template(
            LaunchTemplateName=name, LaunchTemplateData={"ImageId": "ami-1", "InstanceType": "m6i.large"}
        )
        subnet = self.ec2.describe_subnets()["Subnets"][0]["SubnetId"]
        how = {"LaunchTemplate": {"LaunchTemplateName": name, "Version": "$Latest"}} | more
        self.autoscaling.create_auto_scaling_group(
            AutoScalingGroupName=name, MinSize=1, MaxSize=2, DesiredCapacity=1, VPCZoneIdentifier=subnet, **how
        )
        return name

    def described(self, group: str) -> dict[str, Any]:
        (found,) = self.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])["AutoScalingGroups"]
        return dict(found)


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for a condition; raises AssertionError naming it when it has taken too long."""
    waiting.until(condition, what, within_seconds=_RUN_SECONDS, pause=0.01)


def refusal(call: Callable[..., Any], **parameters: Any) -> str:
    """The code of the error that the call is refused with."""
    from botocore.exceptions import ClientError

    try:
        call(**parameters)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    raise AssertionError("the call was not refused")


def gives(output: Any, **more: Any) -> dict[str, Any]:
    return {"Type": "Pass", "Output": output, "End": True, **more}


def task(resource: str, arguments: Any = None, **more: Any) -> dict[str, Any]:
    ends = {} if "Next" in more else {"End": True}
    return {"Type": "Task", "Resource": f"arn:aws:states:::{resource}", "Arguments": arguments or {}, **ends, **more}


def catches(next_state: str, **more: Any) -> list[dict[str, Any]]:
    return [{"ErrorEquals": ["States.ALL"], "Next": next_state, **more}]


def nested(machine: str, suffix: str = ".sync:2", **more: Any) -> dict[str, Any]:
    return task(f"states:startExecution{suffix}", {"StateMachineArn": machine, "Input": {"from": "parent"}}, **more)


def waits_for_token(aws: Aws, **more: Any) -> dict[str, Any]:
    topic = aws.sns.create_topic(Name="approvals")["TopicArn"]
    arguments = {"TopicArn": topic, "Message": "{% $states.context.Task.Token %}"}
    return task("sns:publish.waitForTaskToken", arguments, **more)


WAITS_LONG = {"Type": "Wait", "Seconds": 60, "End": True}
FAILS = {"Type": "Fail", "Error": "Boom", "Cause": "it had to"}


# The interpreter


@shows("jsonata_is_evaluated")
def an_expression_is_evaluated(aws: Aws) -> None:
    assert aws.run({"a": gives("{% $states.input.n * 2 %}")}, {"n": 21}).output == 42


@shows("jsonata_is_evaluated")
def a_variable_with_quotation_marks_and_two_divisions_stay_what_they_are(aws: Aws) -> None:
    assign = {"Type": "Pass", "Assign": {"text": 'say "hi" \\ ', "n": 12}, "Next": "b"}
    ended = aws.run({"a": assign, "b": gives("{% $text & $string($n / 2 + $n / 3) %}")})
    assert ended.output == 'say "hi" \\ 10'


@shows("jsonata_is_evaluated")
def an_expression_without_a_value_fails_and_null_is_a_value(aws: Aws) -> None:
    assert aws.run({"a": gives("{% $states.input.missing %}")}).error == "States.QueryEvaluationError"
    assert aws.run({"a": gives({"n": "{% $states.input.n %}"})}, {"n": None}).output == {"n": None}


@shows("jsonata_is_evaluated")
def a_catch_sees_the_error_and_no_result(aws: Aws) -> None:
    def ends_with(output: str) -> Ended:
        failing = nested(aws.machine({"a": FAILS}), Catch=catches("b", Output=output))
        return aws.run({"a": failing, "b": gives("{% $states.input %}")})

    assert ends_with("{% $states.errorOutput.Error %}").output == "States.TaskFailed"
    assert ends_with("{% $states.result %}").error == "States.QueryEvaluationError"


@shows("jsonata_is_evaluated")
def a_retry_that_succeeds_has_a_result_and_no_error(aws: Aws) -> None:
    aws.eks.create_cluster(name="known", roleArn=ROLE, resourcesVpcConfig={})
    name = "{% $states.context.State.RetryCount > 0 ? 'known' : 'unknown' %}"
    retry = [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 1, "MaxAttempts": 1}]
    output = "{% [$states.result.Cluster.Name, $exists($states.errorOutput)] %}"
    assert aws.run({"a": task("aws-sdk:eks:describeCluster", {"Name": name}, Retry=retry, Output=output)}).output == [
        "known",
        False,
    ]


@shows("assigned_variables_are_json")
def the_history_shows_assigned_variables_as_json(aws: Aws) -> None:
    ended = aws.run({"a": gives(1, Assign={"text": 'a "quoted" word'})})
    (exited,) = aws.history(ended.arn, "PassStateExited")
    assert json.loads(exited["stateExitedEventDetails"]["assignedVariables"]["text"]) == 'a "quoted" word'


@shows("times_in_the_context_are_aws_times")
def the_context_has_times_with_milliseconds_and_z(aws: Aws) -> None:
    times = "{% [$states.context.Execution.StartTime, $states.context.State.EnteredTime] %}"
    for moment in aws.run({"a": gives(times)}).output:
        time.strptime(moment[:19] + moment[23:], "%Y-%m-%dT%H:%M:%SZ")
        assert moment[19] == "."


@shows("seconds_and_concurrency_are_whole_numbers")
def half_a_second_is_refused(aws: Aws) -> None:
    ended = aws.run({"a": {"Type": "Wait", "Seconds": "{% 0.5 %}", "End": True}})
    assert ended.error == "States.QueryEvaluationError"


@shows("choice_states_decide_as_aws_does")
def a_choice_without_a_match_has_its_own_error(aws: Aws) -> None:
    choice = {"Type": "Choice", "Choices": [{"Condition": "{% false %}", "Next": "b"}]}
    assert aws.run({"a": choice, "b": gives(1)}).error == "States.NoChoiceMatched"


@shows("choice_states_decide_as_aws_does")
def a_matching_rule_keeps_its_own_variables(aws: Aws) -> None:
    rule = {"Condition": "{% $states.input.yes %}", "Next": "b", "Assign": {"by": "rule"}}
    choice = {"Type": "Choice", "Choices": [rule], "Default": "b", "Assign": {"by": "default"}}
    states = {"a": choice, "b": gives("{% $by %}")}
    assert aws.run(states, {"yes": True}).output == "rule"
    assert aws.run(states, {"yes": False}).output == "default"


@shows("states_errors_leave_maps_and_branches")
def a_states_error_leaves_a_map(aws: Aws) -> None:
    inner = {"a": gives("{% $states.input.missing %}")}
    each = {"Type": "Map", "Items": [1], "ItemProcessor": {"StartAt": "a", "States": inner}, "End": True}
    ended = aws.run({"m": each | {"Catch": catches("c")}, "c": gives("{% $states.input.Error %}")})
    assert ended.output == "States.QueryEvaluationError"


@shows("runtime_errors_cannot_be_caught")
def states_all_does_not_catch_a_runtime_error(aws: Aws) -> None:
    inner = {"a": {"Type": "Choice", "Choices": [{"Condition": "{% 'text' %}", "Next": "a"}]}}
    each = {"Type": "Map", "Items": [1], "ItemProcessor": {"StartAt": "a", "States": inner}, "End": True}
    assert aws.run({"m": each | {"Catch": catches("c")}, "c": gives(1)}).status == "FAILED"


@shows("a_catch_may_lead_to_its_own_state")
def a_state_can_catch_into_itself(aws: Aws) -> None:
    aws.eks.create_cluster(name="known", roleArn=ROLE, resourcesVpcConfig={})
    name = "{% $exists($tries) ? 'known' : 'unknown' %}"
    caught = catches("a", Assign={"tries": 1}, Output={})
    describe = task("aws-sdk:eks:describeCluster", {"Name": name}, Catch=caught, Next="b")
    ended = aws.run({"a": describe, "b": gives("{% $states.input.Cluster.Name %}")})
    assert ended.output == "known"


@shows("the_map_item_is_seen_inside_the_iteration")
def a_task_in_a_map_sees_its_item(aws: Aws) -> None:
    item = {"value": "{% $states.context.Map.Item.Value %}", "index": "{% $states.context.Map.Item.Index %}"}
    topic = aws.sns.create_topic(Name="items")["TopicArn"]
    publish = task("sns:publish", {"TopicArn": topic, "Message": item}, Output=item)
    each = {"Type": "Map", "Items": ["x"], "ItemProcessor": {"StartAt": "a", "States": {"a": publish}}, "End": True}
    assert aws.run({"m": each}).output == [{"value": "x", "index": 0}]


@shows("definitions_are_json")
def texts_and_numbers_of_a_definition_are_read_as_json(aws: Aws) -> None:
    assign = {"Type": "Pass", "Assign": {"text": 'a "quoted" word\n'}, "Next": "b"}
    assert aws.run({"a": assign, "b": gives({"text": "{% $text %}", "n": -1})}).output == {
        "text": 'a "quoted" word\n',
        "n": -1,
    }
    ended = aws.run({"a": gives({"n": -1})})
    assert '"n":-1}' in aws.states.describe_execution(executionArn=ended.arn)["output"]


@shows("definitions_are_parsed_once")
def a_definition_is_parsed_once(_aws: Aws) -> None:
    from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser

    definition = json.dumps({"StartAt": "a", "States": {"a": {"Type": "Succeed"}}})
    assert AmazonStateLanguageParser.parse(definition) is AmazonStateLanguageParser.parse(definition)


@shows("failures_are_not_printed_whole")
def a_caught_failure_is_not_printed(aws: Aws) -> None:
    printed = io.StringIO()
    handler = logging.StreamHandler(printed)
    logging.getLogger("moto.stepfunctions").addHandler(handler)
    failing = nested(aws.machine({"a": FAILS}), Catch=catches("b"))
    aws.run({"a": failing, "b": gives(1)})
    assert not printed.getvalue()


# Tasks


@shows("clients_are_made_once")
def a_task_has_a_client_with_the_roles_own_credentials(_aws: Aws) -> None:
    from moto.stepfunctions.parser.asl.component.state.exec.state_task.credentials import StateCredentials
    from moto.stepfunctions.parser.asl.utils.boto_client import boto_client_for

    first, second = (
        boto_client_for(region=REGION, service="sts", state_credentials=StateCredentials(ROLE)) for _ in "12"
    )
    assert first is second
    assert first.get_caller_identity()["Arn"].startswith("arn:aws:sts::123456789012:assumed-role/probe/")


@shows("parameters_and_results_have_the_services_shape")
def a_nested_execution_starts_and_answers(aws: Aws) -> None:
    child = aws.machine({"a": gives({"got": "{% $states.input.from %}"})})
    ended = aws.run({"a": nested(child, Output="{% $states.result.Output.got %}")})
    assert ended.output == "parent"


@shows("parameters_and_results_have_the_services_shape")
def times_in_a_result_are_text(aws: Aws) -> None:
    aws.eks.create_cluster(name="known", roleArn=ROLE, resourcesVpcConfig={})
    describe = task("aws-sdk:eks:describeCluster", {"Name": "known"}, Output="{% $states.result.Cluster.CreatedAt %}")
    assert aws.run({"a": describe}).output.endswith("Z")


@shows("sdk_errors_are_named_as_aws_names_them")
def an_sdk_error_carries_the_services_name(aws: Aws) -> None:
    assert aws.run({"a": task("aws-sdk:eks:describeCluster", {"Name": "no"})}).error == "Eks.ResourceNotFoundException"


@shows("nested_executions_are_watched_and_stopped")
def a_stopped_parent_stops_its_child(aws: Aws) -> None:
    child = aws.machine({"a": WAITS_LONG})
    parent = aws.start(aws.machine({"a": nested(child)}))

    def statuses() -> list[str]:
        return [e["status"] for e in aws.states.list_executions(stateMachineArn=child)["executions"]]

    until(lambda: statuses() == ["RUNNING"], "the child runs")
    aws.states.stop_execution(executionArn=parent)
    until(lambda: statuses() == ["ABORTED"], "the child is aborted")


@shows("nested_executions_are_watched_and_stopped")
def a_failed_childs_cause_is_its_description(aws: Aws) -> None:
    ended = aws.run({"a": nested(aws.machine({"a": FAILS}))})
    cause = json.loads(ended.cause or "")
    assert ended.error == "States.TaskFailed"
    assert (cause["Status"], cause["Error"], cause["Cause"]) == ("FAILED", "Boom", "it had to")
    assert isinstance(cause["StartDate"], int)


@shows("used_up_task_tokens_are_refused")
def a_token_counts_once(aws: Aws) -> None:
    execution = aws.start(aws.machine({"a": waits_for_token(aws, Next="b"), "b": WAITS_LONG}))
    token = aws.token(execution)
    aws.states.send_task_success(taskToken=token, output="{}")
    until(lambda: bool(aws.history(execution, "WaitStateEntered")), "the task has ended")
    assert refusal(aws.states.send_task_success, taskToken=token, output="{}") == "TaskTimedOut"


# Executions


@shows("executions_have_names")
def two_executions_without_a_name_run(aws: Aws) -> None:
    machine = aws.machine({"a": gives(1)})
    names = {aws.ended(aws.start(machine)).arn.rsplit(":", 1)[1] for _ in range(2)}
    assert len(names) == 2
    assert "None" not in names


@shows("stopping_takes_effect_at_once")
def a_stopped_execution_ends_at_once_and_keeps_its_reason(aws: Aws) -> None:
    retries = [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 60, "MaxAttempts": 2}]
    failing = task("aws-sdk:eks:describeCluster", {"Name": "no"}, Retry=retries)
    execution = aws.start(aws.machine({"a": failing}))
    until(lambda: bool(aws.history(execution, "TaskFailed")), "the task has failed once")
    aws.states.stop_execution(executionArn=execution, error="Operator", cause="enough")
    described = aws.states.describe_execution(executionArn=execution)
    assert (described["status"], described["error"], described["cause"]) == ("ABORTED", "Operator", "enough")
    assert aws.history(execution, "ExecutionAborted")


@shows("status_changes_are_announced")
def each_change_of_status_is_announced(aws: Aws) -> None:
    from lab.aws.compat.executions import status_listeners

    seen: list[str] = []
    status_listeners.append(lambda execution: seen.append(str(execution.status)))
    aws.run({"a": gives(1)})
    until(lambda: seen == ["RUNNING", "SUCCEEDED"], "both changes are announced")


@shows("ended_executions_have_a_stop_date")
def a_timed_out_execution_has_a_stop_date(aws: Aws) -> None:
    ended = aws.run({"a": WAITS_LONG}, TimeoutSeconds=1)
    assert ended.status == "TIMED_OUT"
    assert "stopDate" in aws.states.describe_execution(executionArn=ended.arn)


@shows("an_execution_that_has_ended_has_its_output")
def an_output_that_takes_long_to_copy_is_there_at_the_end(aws: Aws) -> None:
    from moto.stepfunctions.parser.asl.eval.states import States
    from moto.stepfunctions.parser.models import stepfunctions_parser_backends

    from lab.aws.compat.registry import around

    described = threading.Event()

    def once_described(original: Any, self: Any) -> Any:
        """Where an execution is said to have ended, its output is copied only when somebody has seen that."""
        backends = (backend for account in stepfunctions_parser_backends.values() for backend in account.values())
        if any(execution.exec_status != "RUNNING" for backend in backends for execution in backend._get_executions()):
            described.wait(_RUN_SECONDS)
        return original(self)

    around(States, "get_input", once_described)
    ended = aws.run({"a": gives({"all": "of it"})})
    described.set()
    assert ended.output == {"all": "of it"}


@shows("outputs_are_json")
def a_text_is_described_as_json(aws: Aws) -> None:
    assert aws.run({"a": gives("a text")}).output == "a text"


@shows("errors_have_codes")
def a_bad_definition_is_called_that(aws: Aws) -> None:
    refused = refusal(aws.states.create_state_machine, name="bad", definition="{}", roleArn=ROLE)
    assert refused == "InvalidDefinition"


@shows("histories_have_pages")
def a_history_comes_in_pages_and_backwards(aws: Aws) -> None:
    ended = aws.run({"a": gives(1)})
    page = aws.states.get_execution_history(executionArn=ended.arn, maxResults=1, reverseOrder=True)
    assert [event["type"] for event in page["events"]] == ["ExecutionSucceeded"]
    following = aws.states.get_execution_history(
        executionArn=ended.arn, maxResults=1, reverseOrder=True, nextToken=page["nextToken"]
    )
    assert [event["type"] for event in following["events"]] == ["PassStateExited"]


@shows("histories_end")
def an_execution_ends_with_its_history_whatever_it_catches(aws: Aws) -> None:
    from lab.aws.compat import executions

    executions.HISTORY_LIMIT = 40
    count = {"Type": "Pass", "Assign": {"n": "{% $n + 1 %}"}, "Next": "again"}
    again = {"Type": "Choice", "Choices": [{"Condition": "{% $n < 100 %}", "Next": "count"}], "Default": "end"}
    iterator = {"StartAt": "zero", "States": {"zero": {"Type": "Pass", "Assign": {"n": 0}, "Next": "count"},
                                              "count": count, "again": again, "end": {"Type": "Succeed"}}}  # fmt: skip
    ended = aws.run({"a": {"Type": "Parallel", "Branches": [iterator], "Catch": catches("b"), "End": True},
                     "b": gives("caught")})  # fmt: skip
    assert (ended.status, ended.error, ended.output) == ("FAILED", "States.Runtime", None)
    assert "maximum number of history events" in (ended.cause or "")
    events = aws.states.get_execution_history(executionArn=ended.arn, maxResults=1000)["events"]
    assert (len(events), events[-1]["type"]) == (40, "ExecutionFailed")


@shows("task_tokens_carry_causes_and_are_checked")
def a_failed_tasks_cause_is_kept_and_bad_output_is_refused(aws: Aws) -> None:
    execution = aws.start(aws.machine({"a": waits_for_token(aws)}))
    token = aws.token(execution)
    assert refusal(aws.states.send_task_success, taskToken=token, output="{") == "InvalidOutput"
    aws.states.send_task_failure(taskToken=token, error="No", cause="not today")
    ended = aws.ended(execution)
    assert (ended.error, ended.cause) == ("No", "not today")
    assert refusal(aws.states.send_task_success, taskToken=token, output="{}") == "TaskTimedOut"


@shows("ended_threads_are_forgotten")
def threads_that_ended_are_forgotten(aws: Aws) -> None:
    from moto.stepfunctions.parser.utils import TMP_THREADS

    for _ in range(3):
        aws.run({"a": gives(1)})
    until(lambda: len(TMP_THREADS) <= 2, "ended threads are forgotten")


# Groups and launch templates


@shows("sizes_are_enforced")
def the_desired_capacity_stays_between_minimum_and_maximum(aws: Aws) -> None:
    name = aws.group()
    change = aws.autoscaling.set_desired_capacity
    assert refusal(change, AutoScalingGroupName=name, DesiredCapacity=3) == "ValidationError"
    assert refusal(change, AutoScalingGroupName=name, DesiredCapacity=0) == "ValidationError"
    update = aws.autoscaling.update_auto_scaling_group
    assert refusal(update, AutoScalingGroupName=name, MinSize=3) == "ValidationError"
    assert refusal(update, AutoScalingGroupName=name, DesiredCapacity=3) == "ValidationError"


@shows("instances_keep_their_launch_template_version")
def an_instance_keeps_the_version_that_it_was_launched_with(aws: Aws) -> None:
    name = aws.group()
    aws.ec2.create_launch_template_version(
        LaunchTemplateName=name, LaunchTemplateData={"ImageId": "ami-2", "InstanceType": "m6i.large"}
    )
    aws.autoscaling.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=2)
    versions = [instance["LaunchTemplate"]["Version"] for instance in aws.described(name)["Instances"]]
    assert versions == ["1", "2"]


@shows("updates_leave_the_rest_alone")
def an_update_of_the_size_keeps_the_mixed_instances_policy(aws: Aws) -> None:
    name = aws.group()
    template = {"LaunchTemplateSpecification": {"LaunchTemplateName": name, "Version": "$Latest"}}
    policy = {"LaunchTemplate": template | {"Overrides": [{"InstanceType": "m7i.large"}]}}
    aws.autoscaling.update_auto_scaling_group(AutoScalingGroupName=name, MixedInstancesPolicy=policy)
    aws.autoscaling.update_auto_scaling_group(AutoScalingGroupName=name, MaxSize=5)
    described = aws.described(name)
    assert described["MaxSize"] == 5
    assert described["MixedInstancesPolicy"]["LaunchTemplate"]["Overrides"] == [{"InstanceType": "m7i.large"}]
    assert "LaunchTemplate" not in described


@shows("unknown_groups_and_instances_are_refused")
def an_unknown_group_is_a_validation_error(aws: Aws) -> None:
    suspend = aws.autoscaling.suspend_processes
    assert refusal(suspend, AutoScalingGroupName="none", ScalingProcesses=["Launch"]) == "ValidationError"
    protect = aws.autoscaling.set_instance_protection
    refused = refusal(protect, AutoScalingGroupName=aws.group(), InstanceIds=["i-0"], ProtectedFromScaleIn=True)
    assert refused == "ValidationError"


@shows("new_versions_start_from_their_source")
def a_new_version_inherits_from_its_source(aws: Aws) -> None:
    name = aws.group()
    made = aws.ec2.create_launch_template_version(
        LaunchTemplateName=name, SourceVersion="1", LaunchTemplateData={"ImageId": "ami-2"}
    )
    data = made["LaunchTemplateVersion"]["LaunchTemplateData"]
    assert (data["ImageId"], data["InstanceType"]) == ("ami-2", "m6i.large")


@shows("new_versions_may_have_user_data")
def a_group_launches_a_new_version_with_user_data(aws: Aws) -> None:
    name = aws.group()
    data = {"ImageId": "ami-2", "InstanceType": "m6i.large", "UserData": "IyEvYmluL3No"}
    aws.ec2.create_launch_template_version(LaunchTemplateName=name, LaunchTemplateData=data)
    aws.autoscaling.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=2)
    assert len(aws.described(name)["Instances"]) == 2


@shows("an_instance_is_registered_once")
def registering_an_instance_again_changes_nothing(aws: Aws) -> None:
    listener = {"Protocol": "TCP", "LoadBalancerPort": 80, "InstancePort": 80}
    aws.elb.create_load_balancer(LoadBalancerName="b", Listeners=[listener], AvailabilityZones=["eu-central-1a"])
    for _ in range(2):
        aws.elb.register_instances_with_load_balancer(LoadBalancerName="b", Instances=[{"InstanceId": "i-1"}])
    (balancer,) = aws.elb.describe_load_balancers(LoadBalancerNames=["b"])["LoadBalancerDescriptions"]
    assert balancer["Instances"] == [{"InstanceId": "i-1"}]


@shows("a_function_says_where_it_logs")
def a_function_logs_where_it_was_told_to_or_into_its_own_group(aws: Aws) -> None:
    trust = {"Version": "2012-10-17", "Statement": []}
    role = aws.iam.create_role(RoleName="logs", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("a.py", "")
    for name, given in {"told": {"LoggingConfig": {"LogGroup": "elsewhere"}}, "own": {}}.items():
        aws.lambda_.create_function(
            FunctionName=name,
            Role=role,
            Handler="a.b",
            Runtime="python3.13",
            Code={"ZipFile": code.getvalue()},
            **given,
        )
    described = [aws.lambda_.get_function_configuration(FunctionName=name) for name in ("told", "own")]
    assert [d["LoggingConfig"]["LogGroup"] for d in described] == ["elsewhere", "/aws/lambda/own"]


@shows("a_new_trail_records_management_events")
def a_trail_without_selectors_of_its_own_records_all_management_events(aws: Aws) -> None:
    aws.s3.create_bucket(Bucket="trail", CreateBucketConfiguration={"LocationConstraint": REGION})
    aws.cloudtrail.create_trail(Name="trail", S3BucketName="trail")
    (selector,) = aws.cloudtrail.get_event_selectors(TrailName="trail")["EventSelectors"]
    assert (selector["ReadWriteType"], selector["IncludeManagementEvents"]) == ("All", True)
    advanced = [{"FieldSelectors": [{"Field": "eventCategory", "Equals": ["Data"]}]}]
    aws.cloudtrail.put_event_selectors(TrailName="trail", AdvancedEventSelectors=advanced)
    assert not aws.cloudtrail.get_event_selectors(TrailName="trail")["EventSelectors"]


@shows("launch_templates_have_pages")
def all_versions_of_a_launch_template_are_listed(aws: Aws) -> None:
    name = aws.group()
    for _ in range(16):
        aws.ec2.create_launch_template_version(LaunchTemplateName=name, LaunchTemplateData={"ImageId": "ami-2"})
    pages = aws.ec2.get_paginator("describe_launch_template_versions").paginate(LaunchTemplateName=name)
    assert sum(len(page["LaunchTemplateVersions"]) for page in pages) == 17
    unknown = refusal(aws.ec2.describe_launch_templates, LaunchTemplateIds=["lt-0123456789abcdef0"])
    assert unknown == "InvalidLaunchTemplateId.NotFound"


@shows("unknown_launch_template_filters_are_refused")
def a_filter_that_launch_templates_do_not_have_is_refused(aws: Aws) -> None:
    aws.group()
    by_id = [{"Name": "launch-template-id", "Values": ["lt-0"]}]
    assert refusal(aws.ec2.describe_launch_templates, Filters=by_id) == "InvalidParameterValue"


# EventBridge


@shows("patterns_match_leaves")
def only_leaves_exist_for_a_pattern(aws: Aws) -> None:
    from moto.events.models import EventPattern

    event: Any = {"request": {"template": {"version": "2"}, "sizes": [{"type": "a"}, {"type": "b"}], "note": None}}
    exists = {"request": {"template": {"version": [{"exists": True}]}}, "other": [{"exists": False}]}
    for pattern, matches in (
        (exists, True),
        ({"request": {"template": [{"exists": True}]}}, False),
        ({"request": {"template": [{"exists": False}]}}, True),
        ({"request": {"sizes": {"type": ["b"]}}}, True),
        ({"request": {"sizes": {"type": [{"exists": True}]}}}, True),
        ({"request": {"note": [{"exists": True}]}}, True),
    ):
        assert EventPattern("", pattern).matches_event(event) is matches, pattern


# How they are run


def run(name: str, aws: Aws, *, without: bool) -> str | None:
    """Runs a probe in this process; answers None if it succeeds, else what went wrong. Changes the process for good."""
    from moto import mock_aws

    from lab.aws import compat, scaling
    from lab.aws.account import Account
    from lab.aws.fleet import Fleet
    from lab.aws.targets import Targets

    correction, probe = PROBES[name]
    compat.apply(without=[correction] if without else [])
    scaling.install(Fleet(Account(REGION), Targets(time.time), boot=0, terminate=0, clock=time.time))
    with mock_aws(config=_CONFIG):
        try:
            probe(aws)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is the answer)
            return f"{type(error).__name__}: {error}"[:500]
    return None


def _fork(name: str, aws: Aws, *, without: bool) -> tuple[int, int]:
    """A process for one run: everything that is slow to import is there. Its id, and where its answer can be read."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    global _RUN_SECONDS
    _RUN_SECONDS = 2.0 if without else _RUN_SECONDS
    signal.alarm(int(waiting.patience(_RUN_SECONDS) + _LONGEST_SECONDS))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.write(writer, json.dumps(run(name, aws, without=without)).encode())
    os._exit(0)


def _warm_up(aws: Aws) -> None:
    """Lets the services load what they load once, so that not every run has to."""
    from moto import mock_aws

    with mock_aws(config=_CONFIG):
        aws.machine({"a": WAITS_LONG})
        aws.described(aws.group())
        aws.eks.create_cluster(name="warm", roleArn=ROLE, resourcesVpcConfig={})
        aws.sns.create_topic(Name="warm")
    gc.collect()
    gc.freeze()


def main() -> None:
    """Runs every probe with and without its correction, two at a time."""
    os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"
    for module in ("lab.aws.compat", "lab.aws.scaling"):
        importlib.import_module(module)

    aws = Aws()
    _warm_up(aws)
    jobs = [(name, without) for name in PROBES for without in (False, True)]
    running: dict[int, tuple[str, bool, int]] = {}
    while jobs or running:
        while jobs and len(running) < _AT_ONCE:
            name, without = jobs.pop(0)
            child, reader = _fork(name, aws, without=without)
            running[child] = (name, without, reader)
        child, _ = os.wait()
        name, without, reader = running.pop(child)
        with os.fdopen(reader) as answer:
            text = answer.read()
        print(
            json.dumps({"probe": name, "without": without, "wrong": json.loads(text) if text else "it died"}),
            flush=True,
        )


if __name__ == "__main__":
    main()
