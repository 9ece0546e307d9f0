"""The workflow page, as CDK wrote it: no step without a retry, a catch and a deadline."""

import importlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from eks_rolling import errors, state_names
from eks_rolling.names import ROLL_IN_NODE, node_execution_suffix
from eks_rolling.redis.actions import RedisStep
from eks_rolling.report.timeline import KINDS
from eks_rolling.settings import Deadlines, Settings
from eks_rolling.steps.plan import MOST_UNREADY
from stacks.functions import HOOKS, ROLLBACK, STEPS, UNJOINED
from stacks.state_machine import (
    ALREADY_THERE,
    LONGEST_CAUSE,
    READY_SECONDS,
    REDIS_STATES,
    RETRIED,
    START_RETRIED,
    UNREADY,
)
from tests.assembly import DOCUMENT, HOOK_FUNCTION, Assembly, synthesize, with_hooks

REPOSITORY = Path(__file__).resolve().parent.parent.parent
MACHINES = ("roll", "node", "restore")


def states(definition: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every state, those inside a Map too."""
    for name, state in definition["States"].items():
        yield name, state
        if state["Type"] == "Map":
            yield from states(state["ItemProcessor"])


def tasks(machine: str, made: Assembly | None = None) -> list[tuple[str, dict[str, Any]]]:
    definition = (made or synthesize()).definition(machine)
    return [(n, s) for n, s in states(definition) if s["Type"] == "Task"]


def step_of(state: dict[str, Any]) -> str:
    return str(state["Arguments"].get("FunctionName", "")).removeprefix("step:")


def work_of(state: dict[str, Any]) -> str:
    """What the state's deadline is named after: the step, or the action of it that the state stands for."""
    return str(state["Arguments"].get("Payload", {}).get("action", step_of(state)))


def test_state_names_are_those_of_the_definitions() -> None:
    """What reports, `watch` and the lab look for is there, and what they could look for has a constant."""
    named = {value for key, value in vars(state_names).items() if key.isupper()}
    there = {name for machine in MACHINES for name, _ in states(with_hooks().definition(machine))}
    of_rolls = {name for machine in ("roll", "node") for name, state in tasks(machine, with_hooks()) if step_of(state)}
    assert named - there == set()
    assert of_rolls - named - set(REDIS_STATES) == set()


@pytest.mark.parametrize("machine", MACHINES)
def test_every_call_of_a_step_is_retried_after_faults_that_pass(machine: str) -> None:
    """R3."""
    for name, state in tasks(machine):
        if not step_of(state):
            continue
        retry, unready = state["Retry"]
        expected = [e for e in RETRIED if name != "Wait for approval" or e != "States.Timeout"]
        assert retry["ErrorEquals"] == expected, name
        assert retry["JitterStrategy"] == "FULL", name
        assert unready["ErrorEquals"] == list(UNREADY), name
        waits = [unready["IntervalSeconds"] * unready["BackoffRate"] ** n for n in range(unready["MaxAttempts"])]
        assert sum(min(wait, unready["MaxDelaySeconds"]) for wait in waits) >= READY_SECONDS, name


NEVER_RETRIED = {
    # A person has to change a setting, a key, a role or the code.
    "CodeArtifactUserDeletedException", "CodeArtifactUserFailedException", "CodeArtifactUserPendingException",
    "DurableExecutionAlreadyStartedException", "EC2AccessDeniedException", "EFSIOException",
    "EFSMountConnectivityException", "EFSMountFailureException", "EFSMountTimeoutException",
    "InvalidParameterValueException", "InvalidRequestContentException", "InvalidRuntimeException",
    "InvalidSecurityGroupIDException", "InvalidSubnetIDException", "InvalidZipFileException",
    "KMSAccessDeniedException", "KMSDisabledException", "KMSInvalidStateException", "KMSNotFoundException",
    "ModeNotSupportedException", "NoPublishedVersionException", "RecursiveInvocationException",
    "RequestTooLargeException", "ResourceNotFoundException", "RuntimeAliasDeletedException",
    "RuntimeVersionDeletedException", "S3FilesMountConnectivityException", "S3FilesMountFailureException",
    "S3FilesMountTimeoutException", "SerializedRequestEntityTooLargeException", "ServiceQuotaExceededException",
    "SnapStartException", "SnapStartNotReadyException", "SnapStartRegenerationFailureException",
    "SnapStartTimeoutException", "UnsupportedMediaTypeException",
}  # fmt: skip


def test_every_error_that_lambda_models_for_a_call_is_sorted() -> None:
    """A new botocore with a new error fails here until somebody has decided."""
    model: Any = botocore.session.get_session().get_service_model("lambda")
    modelled = {shape.error_code for shape in model.operation_model("Invoke").error_shapes}
    retried = {error.removeprefix("Lambda.") for error in (*RETRIED, *UNREADY)}
    assert modelled - retried == NEVER_RETRIED
    assert not retried & NEVER_RETRIED


def test_every_execution_is_started_again_after_faults_that_pass_and_by_name() -> None:
    """By its name none is started twice."""
    starting = [
        (name, state)
        for machine in MACHINES
        for name, state in tasks(machine, with_hooks())
        if ":startExecution" in state["Resource"]
    ]
    assert {name for name, _ in starting} == {"Replace node", "Start a roll for this node", state_names.START_ROLLBACK}
    for name, state in starting:
        assert "Execution.Name" in state["Arguments"]["Name"] or "$roll" in state["Arguments"]["Name"], name
        (retry,) = state["Retry"]
        assert retry["ErrorEquals"] == list(START_RETRIED), name
        assert not {"States.ALL", "States.TaskFailed"} & set(retry["ErrorEquals"])
        # An answer was lost, and what was started has ended meanwhile. A node's is waited for.
        already = [c for c in state["Catch"] if c["ErrorEquals"] == [ALREADY_THERE]]
        assert bool(already) == (name != "Replace node"), name


def test_every_step_of_a_roll_that_fails_leads_to_restore_or_before_the_lock_to_the_report() -> None:
    """R2."""
    settle = "Finish Redis migrations that were begun"
    received = "Wait for the change to settle"
    elsewhere = {
        received: "Report",
        "Check the permissions": "Report",
        "Plan the roll": "Report",
        "Wait for approval": "Look for orphans",
        settle: "Restore",
        "Restore": "Look for orphans",
        "Look for orphans": "Report",
    }
    for name, state in tasks("roll"):
        if name in {"Report", "Replace node"}:
            continue
        *answers, catch = state["Catch"]
        assert [each["ErrorEquals"] for each in answers] == (
            [["Refused", "States.Timeout"]] if name == "Wait for approval" else []
        ), name
        assert catch["ErrorEquals"] == ["States.ALL"], name
        assert catch["Next"] == elsewhere.get(name, settle), name


def test_every_step_of_a_node_that_fails_is_recorded() -> None:
    for name, state in tasks("node"):
        if name in {"Record what was done", "Start a roll for this node"}:
            continue
        (catch,) = state["Catch"]
        assert (catch["ErrorEquals"], catch["Next"]) == (["States.ALL"], "Record what was done"), name


def test_a_node_that_fails_does_not_end_the_map_around_it() -> None:
    (child,) = [s for n, s in tasks("roll") if n == "Replace node"]
    assert child["Catch"][0]["Next"] == "Node not replaced"
    assert child["Resource"].endswith("startExecution.sync:2")


@pytest.mark.parametrize("machine", MACHINES)
def test_every_loop_has_a_deadline(machine: str) -> None:
    for name, state in tasks(machine):
        waits = f"{name}: wait" in synthesize().definition(machine)["States"]
        if waits:
            assert work_of(state) in Deadlines.model_fields, name


@pytest.mark.parametrize("machine", MACHINES)
def test_every_state_is_reached_and_every_way_on_exists(machine: str) -> None:
    definition = synthesize().definition(machine)
    targets = {definition["StartAt"]}
    for _, state in states(definition):
        targets |= {state.get("Next"), state.get("Default")}
        targets |= {c["Next"] for c in (*state.get("Choices", ()), *state.get("Catch", ()))}
    targets |= {s["ItemProcessor"]["StartAt"] for _, s in states(definition) if s["Type"] == "Map"}
    assert targets - {None} == {name for name, _ in states(definition)}


def test_names_are_sentences_and_unique_within_a_machine() -> None:
    for machine in MACHINES:
        names = [name for name, _ in states(synthesize().definition(machine))]
        assert len(names) == len(set(names))
        assert all(len(name) <= 80 and name[0].isupper() for name in names)


def test_every_function_is_a_step_module_and_every_step_module_a_function() -> None:
    modules = {p.stem for p in (REPOSITORY / "lambdas" / "eks_rolling" / "steps").glob("*.py")} - {"__init__"}
    assert modules == set(STEPS) | set(HOOKS) | set(ROLLBACK) | set(UNJOINED)
    handlers = {p["Handler"] for p in synthesize().of_type("AWS::Lambda::Function").values() if "Handler" in p}
    assert {f"eks_rolling.steps.{step}.handler" for step in STEPS} <= handlers
    for step in STEPS:
        assert callable(importlib.import_module(f"eks_rolling.steps.{step}").handler)


def test_every_action_of_a_redis_group_is_one_state_of_its_kinds_function() -> None:
    found = {n: (step_of(s), work_of(s)) for n, s in tasks("node") if step_of(s).startswith("migrate_")}
    assert found == REDIS_STATES
    assert sorted(action for _, action in found.values()) == sorted(RedisStep)


def test_every_step_is_called_by_a_machine() -> None:
    called = {step_of(state) for machine in MACHINES for _, state in tasks(machine)} - {""}
    assert called == set(STEPS)


def test_where_the_settings_have_hooks_the_machines_ask_them() -> None:
    asking = {n for machine in MACHINES for n, state in tasks(machine, with_hooks()) if step_of(state) == "run_hooks"}
    moments = ("before the roll", "after the roll", "before the node", "after the node")
    assert asking == {f"Ask the hooks {moment}" for moment in moments}


def test_a_hook_is_called_by_its_step_alone_and_by_nobody_who_was_not_named() -> None:
    policies = with_hooks().of_type("AWS::IAM::Policy").values()
    statements = [s for p in policies for s in p["PolicyDocument"]["Statement"] if p["Roles"]]
    steps = [s for s in statements if "lambda:InvokeFunction" in s["Action"] and s["Resource"] == HOOK_FUNCTION]
    assert len(steps) == 1
    machines = [s for s in statements if "lambda:InvokeFunction" in s["Action"] and s not in steps]
    assert HOOK_FUNCTION not in str(machines)
    assert HOOK_FUNCTION not in str(synthesize().template)


def test_a_roll_may_start_its_rollback_and_no_other_machine() -> None:
    roll = with_hooks().machine_id("roll")
    (policy,) = [
        p for name, p in with_hooks().of_type("AWS::IAM::Policy").items() if roll.removesuffix("Machine")[:4] in name
        and "RollMachineRole" in name
    ]  # fmt: skip
    started = [s["Resource"] for s in policy["PolicyDocument"]["Statement"] if "states:StartExecution" in s["Action"]]
    assert len(started) == 2
    assert "eks-rolling-demo-roll" in str(started)


def test_without_a_way_back_no_step_may_change_a_launch_template() -> None:
    template = json.dumps(synthesize().template)
    assert not [each for each in ("ec2:ModifyLaunchTemplate", "ec2:RunInstances", "iam:PassRole") if each in template]


def test_the_error_that_is_retried_is_the_class_that_steps_raise() -> None:
    assert errors.Transient.__name__ in RETRIED
    assert not {c.__name__ for c in errors.Permanent.__subclasses__()} & set(RETRIED)


@pytest.mark.heavy
@pytest.mark.parametrize("made", [synthesize, with_hooks])
@pytest.mark.parametrize("machine", MACHINES)
def test_an_independent_validator_finds_nothing_wrong(
    machine: str, made: Callable[[], Assembly], tmp_path: Path
) -> None:
    file = tmp_path / f"{machine}.json"
    definition = json.dumps(made().definition(machine))
    for kind in ("step", "machine"):
        definition = definition.replace(f'"{kind}:', f'"arn:aws:{kind}:eu-central-1:123456789012:')
    file.write_text(definition)
    validator = REPOSITORY / "node_modules" / ".bin" / "asl-validator"
    result = subprocess.run([validator, "--json-path", str(file)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_name_of_eighty_characters_is_enough_for_any_cluster_and_instance() -> None:
    assembly = synthesize()
    names = [p["StateMachineName"] for p in assembly.of_type("AWS::StepFunctions::StateMachine").values()]
    assert all(len(name) <= 80 for name in names)
    (child,) = [s for n, s in tasks("roll") if n == "Replace node"]
    # i- and seventeen digits, a dash, and at most sixty characters of the roll's name.
    assert f"$length($roll) <= {ROLL_IN_NODE} ? $roll" in child["Arguments"]["Name"]
    assert 19 + 1 + ROLL_IN_NODE == 80
    assert [len(node_execution_suffix("r" * n)) for n in (1, 60, 61, 80)] == [2, 61, 61, 61]


@pytest.mark.parametrize("machine", ["roll", "node"])
def test_the_report_knows_what_every_waiting_state_waits_for(machine: str) -> None:
    waiting = {name for name, state in tasks(machine) if work_of(state) in Deadlines.model_fields}
    assert waiting - KINDS.keys() - REDIS_STATES.keys() == set()


def test_the_rolls_definition_carries_the_settings_that_it_was_made_with() -> None:
    settings = Settings.parse(json.loads(synthesize().definition("roll")["Comment"]))
    assert settings == Settings.parse(DOCUMENT["settings"])


def test_what_every_node_of_the_largest_wave_failed_with_fits_into_a_state() -> None:
    """262,144 bytes (Step Functions quotas). Of a child's failure Step Functions tells its whole description, as JSON
    in a text (API reference, DescribeExecution)."""
    largest = next(m.le for m in Settings.model_fields["wave"].metadata if hasattr(m, "le"))
    machine = "arn:aws-us-gov:states:us-gov-west-1:123456789012:stateMachine:eks-rolling-" + "c" * 50
    child = {
        "Cause": "c" * LONGEST_CAUSE,
        "Error": "DeadlineExceeded",
        "ExecutionArn": machine.replace("stateMachine", "execution") + "-node:" + "n" * 80,
        "Input": {
            "roll": "r" * 80, "instance": "i-0123456789abcdef0", "node": "n" * 63, "group": "g" * 255,
            "AWS_STEP_FUNCTIONS_STARTED_BY_EXECUTION_ID": machine + "-roll:" + "r" * 80,
        },
        "InputDetails": {"Included": True},
        "Name": "n" * 80,
        "RedriveCount": 0,
        "RedriveStatus": "REDRIVABLE_BY_PARENT",
        "StartDate": 1732700000000,
        "StateMachineArn": machine + "-node",
        "Status": "FAILED",
        "StopDate": 1732700000000,
    }  # fmt: skip
    failure = {"node": "n" * 63, "failure": {"Error": "States.TaskFailed", "Cause": json.dumps(child)}}
    # Forced, so that each is named twice; and as many workloads are not Ready as the plan has room for.
    plan = 1000 * len('"i-0123456789abcdef0", ') * 2 + MOST_UNREADY * len(f'"{"d" * 16}", ')
    assert largest * len(json.dumps(failure)) + plan < 262_144
    (not_replaced,) = [state for name, state in states(synthesize().definition("node")) if name == "Not replaced"]
    assert f"0, {LONGEST_CAUSE})" in not_replaced["Cause"]
