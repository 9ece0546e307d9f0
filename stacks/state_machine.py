"""The workflow: every state, wait, retry and catch of a roll, top to bottom.

A step is a Lambda that looks, decides and acts once, and answers `done` or `wait`. `StateFactory.step` makes three
states of it: the task, the question whether it is done, and the wait. Variables carry identifiers only:

    roll         the roll's name: who holds the lock
    since        when the step at hand began to wait; null between steps
    notified_at  when people were notified of that wait; null while they were not
    change       the number of the change that started this roll among all changes; 0 for a person's roll
    plan         the plan's answer: nodes, groups, targets, surge
    failure      what ended the roll, as Step Functions has it; null while nothing has

Where the settings have a way back (`roll_back`), also: `backGroups`, whose former version was put back, `putBack`, what
was done about it, as sentences, `rollback`, the roll that replaces their new nodes, and `notStarted`, why none does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aws_cdk import ArnFormat, Duration, Stack
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_stepfunctions as sfn
from aws_cdk import aws_stepfunctions_tasks as tasks
from constructs import Construct

from eks_rolling import state_names as named
from eks_rolling.errors import NOT_APPROVED, Aborted, Transient
from eks_rolling.names import DIGEST, ROLL_IN_NODE
from eks_rolling.settings import Moment, Settings

RETRIED = (
    Transient.__name__,
    "Runtime.ExitError",
    "Runtime.OutOfMemory",
    "Sandbox.Timedout",
    "States.Timeout",
    "Lambda.Unknown",
    "Lambda.ServiceException",
    "Lambda.AWSLambdaException",
    "Lambda.SdkClientException",
    "Lambda.TooManyRequestsException",
    "Lambda.ClientExecutionTimeoutException",
)
"""Faults after which a step is run again: ours, a killed or timed-out function, the Lambda service's own.

A function that dies is an ordinary event for a step: each one looks before it acts [R3].
"""

UNREADY = (
    "Lambda.ResourceNotReadyException",
    "Lambda.ENINotReadyException",
    "Lambda.ENILimitReachedException",
    "Lambda.SubnetIPAddressLimitReachedException",
    "Lambda.EC2ThrottledException",
    "Lambda.EC2UnexpectedException",
    "Lambda.ResourceConflictException",
)
"""The function itself is not there yet.

One in a VPC that nobody called for weeks is Inactive: its first call fails, and its network is made anew, which takes
about a minute (Lambda developer guide, "Lambda function states"). So is one that is being deployed anew.
"""

READY_SECONDS = 300
"""How long a call goes on until the function is there: several times what AWS takes."""

START_RETRIED = (
    "StepFunctions.ExecutionLimitExceededException",
    "StepFunctions.ExecutionLimitExceeded",
    "StepFunctions.KmsThrottlingException",
    "StepFunctions.ThrottlingException",
    "StepFunctions.ServiceUnavailableException",
    "StepFunctions.SdkClientException",
    "StepFunctions.AWSStepFunctionsException",
)
"""Faults after which an execution is started again: its name makes that safe, for a running one answers for it."""

ALREADY_THERE = "StepFunctions.ExecutionAlreadyExistsException"
"""What a start by a name is refused with that an execution had which has ended."""

CALL_TIMEOUT = Duration.minutes(3)
"""Longer than any function's own timeout: what Step Functions waits for an answer that was lost."""

NULL = "{% null %}"


def cause_of(error: str) -> str:
    """An error's cause, as an expression; its name where it has none: a timeout comes without."""
    return f"($exists({error}.Cause) ? {error}.Cause : {error}.Error)"


def jsonata(expression: str) -> str:
    """A JSONata expression as the Amazon States Language marks it."""
    return f"{{% {expression} %}}"


def shortened(name: str, longest: int) -> str:
    """The expression of what `names.shortened` makes of the name that this variable has."""
    kept, digest = longest - DIGEST - 1, f"$substring($hash({name}, 'SHA-256'), 0, {DIGEST})"
    return f"($length({name}) <= {longest} ? {name} : $substring({name}, 0, {kept}) & '-' & {digest})"


LONGEST_CAUSE = 1000
"""Characters of what a node failed with that its roll is told: those of a whole wave have to fit into one state. All of
it is on the node's page."""

REASON = "$states.input.reason"
"""Why a step waits or what it did, in the state after it."""

ANSWER = "$states.result.Payload"
"""A step's answer, in the task that called it."""

MOST_TOLD = 20_000
"""Characters of what a restore's earlier looks told that are kept: a state may assign 256 KiB to all its variables
(Step Functions developer guide, "Passing data between states with variables"), and an answer has room for 60 KB of
each (`steps/restore.py`)."""

FIRST_TOLD = 20
"""Sentences of its first looks that are kept once those are too many: each has up to 1,000 characters."""


def _told(variable: str, output: str, *, last: bool = False) -> str:
    """What a restore's looks say in that output, each sentence once: what comes back at each look, or is new at each,
    would fill the variable. `last`: of many, those told first are kept, and the last look's own."""
    known, new, full = f"${variable}", f"{ANSWER}.output.{output}", f"$length($string(${variable})) > {MOST_TOLD}"
    if not last:
        return jsonata(f"[$distinct($append({known}, {full} ? 'and more' : {new}))]")
    first = f"{known}[[0..{FIRST_TOLD - 1}]]"
    return jsonata(f"[$distinct({full} ? $append($append({first}, {new}), 'and more') : $append({known}, {new}))]")


TOLD_BY_RESTORE = {
    "restored": _told("restored", "restored"),
    "leftBehind": _told("leftBehind", "left_behind", last=True),
}
"""What a restore has put back so far, and what it had to leave."""


class Roll(Construct):
    """One execution per roll."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        functions: Mapping[str, lambda_.IFunction],
        settings: Settings,
        name: str,
        roll_node: sfn.IStateMachine,
        log_group: logs.ILogGroup,
    ) -> None:
        super().__init__(scope, construct_id)
        states = StateFactory(self, functions)
        plan = "$plan.output"
        roll_fields = {
            "nodes": jsonata(f"{plan}.nodes"),
            "groups": jsonata(f"{plan}.groups"),
            "targets": jsonata(f"{plan}.targets"),
            "although_current": jsonata(f"{plan}.although_current"),
            "surge": jsonata(f"{plan}.surge"),
            "keep_taints": jsonata(f"{plan}.keep_taints"),
            "accept": jsonata(f"{plan}.accept"),
        }

        begin = states.state(
            "Read the request",
            assign={
                "roll": jsonata("$states.context.Execution.Name"),
                "input": jsonata("$states.input"),
                "started": jsonata("$states.context.Execution.StartTime"),
                "change": jsonata("0"),
                "plan": NULL,
                "since": NULL,
                "notified_at": NULL,
                "failure": NULL,
                "approved": jsonata("false"),
                "locked": jsonata("false"),
                "waves": jsonata("0"),
                "failures": jsonata("[]"),
                "restored": jsonata("[]"),
                "leftBehind": jsonata("[]"),
                "orphans": jsonata("[]"),
                "unlooked": NULL,
                **(NO_ROLLBACK if settings.roll_back.enabled else {}),
            },
        )
        report = states.call(
            named.REPORT,
            "report",
            {
                "input": jsonata("$input"),
                "plan": jsonata("$plan"),
                "failure": jsonata("$failure"),
                "restored": jsonata("$restored"),
                "left_behind": jsonata("$leftBehind"),
                "orphans": jsonata("$orphans"),
                "unlooked": jsonata("$unlooked"),
                "execution": jsonata("$states.context.Execution.Id"),
                "started": jsonata("$started"),
                **(ROLLBACK_TOLD if settings.roll_back.enabled else {}),
            },
        )
        ending = self._roll_back(states, name, report) if settings.roll_back.enabled else report
        look = states.call(
            named.FIND_ORPHANS,
            "find_orphans",
            {"ended": jsonata("true")},
            # A list of one is the thing itself to JSONata.
            assign={"orphans": jsonata(f"[{ANSWER}.output.orphans]")},
            attempts=3,
        )
        look.add_catch(ending, errors=["States.ALL"], assign={"unlooked": jsonata("$states.errorOutput")})
        look.next(ending)
        restore = states.step(
            named.RESTORE,
            "restore",
            {"keep_taints": jsonata(f"$plan = null ? false : {plan}.keep_taints"), "failure": jsonata("$failure")},
            catch=None,
            assign=TOLD_BY_RESTORE,
        )

        after = states.hooks(named.HOOKS_AFTER_ROLL, Moment.AFTER_ROLL, {}, settings)
        if after:
            after.start.add_catch(look, errors=["States.ALL"], assign=KEEP_FIRST)
            after.then(look)
        restored = after.start if after else look
        restore.start.add_catch(
            restored,
            errors=["States.ALL"],
            assign={
                **KEEP_FIRST,
                "leftBehind": jsonata(
                    f"[$append($leftBehind, 'the restore did not finish: ' & {cause_of('$states.errorOutput')})]"
                ),
            },
        )
        settle = states.step(named.FINISH_MIGRATIONS, "settle_redis", {"failure": jsonata("$failure")}, catch=None)
        settle.start.add_catch(
            restore.start,
            errors=["States.ALL"],
            assign=KEEP_FIRST,
        )
        settle.then(restore.start)
        gate_failed = self._put_back(states, settle) if settings.roll_back.enabled else settle

        started_by = states.choice("Started by a change?")
        receive = states.step(
            named.RECEIVE_CHANGE,
            "receive_change",
            {"input": jsonata("$input"), "change": jsonata("$change")},
            catch=report,
            assign={"change": _once("change", "change"), "input": _once("request", "input")},
        )
        change_outcome = states.choice("What becomes of the change?")
        check = states.call(named.CHECK_PERMISSIONS, "check_permissions", {}, attempts=4)
        check.add_catch(report, errors=["States.ALL"], assign=FAILED)
        plan_roll = states.call(
            named.PLAN,
            "plan",
            {"input": jsonata("$input")},
            assign={"plan": jsonata(ANSWER)},
            # Nothing has been changed yet, and an operator may be watching: better an early error than a late success.
            attempts=4,
        )
        plan_roll.add_catch(report, errors=["States.ALL"], assign=FAILED)
        what_now = states.choice("What does the plan say?")
        approval = states.call(
            named.APPROVAL,
            "ask_approval",
            {"token": jsonata("$states.context.Task.Token"), "plan": jsonata("$plan.reason")},
            integration_pattern=sfn.IntegrationPattern.WAIT_FOR_TASK_TOKEN,
            task_timeout=sfn.Timeout.duration(Duration.seconds(settings.deadlines.approval)),
            # No answer in time: asking again would contradict the message.
            retried=[error for error in RETRIED if error != "States.Timeout"],
            outputs=None,
            assign={"approved": jsonata("true")},
        )
        approval.add_catch(look, errors=["Refused", "States.Timeout"], assign=_not_approved(settings))
        approval.add_catch(look, errors=["States.ALL"], assign=FAILED)
        take_lock = states.step(
            named.TAKE_LOCK, "take_lock", {}, catch=settle,
            assign={"locked": jsonata(f"{ANSWER}.status = 'done'")},
        )  # fmt: skip
        plan_old = states.choice("Is the plan still fresh?")
        rehearse = states.call(
            named.REHEARSE,
            "restore",
            {"rehearse": jsonata("true"), "groups": roll_fields["groups"], "nodes": roll_fields["nodes"]},
        )
        rehearse.add_catch(settle.start, errors=["States.ALL"], assign=FAILED)
        pause = states.step(named.PAUSE, "pause_interference", roll_fields, catch=settle)
        taint = states.step(named.TAINT, "taint_nodes", roll_fields, catch=settle)
        resume = states.step(named.FINISH_DEAD_MIGRATIONS, "settle_redis", {"ending": jsonata("false")}, catch=settle)
        pick = states.call(
            named.SELECT_WAVE,
            "select_wave",
            {**roll_fields, "places": jsonata(f"{plan}.places"), "waves": jsonata("$waves")},
            assign={"waves": jsonata("$waves + 1")},
        )
        pick.add_catch(settle.start, errors=["States.ALL"], assign=FAILED)
        any_left = states.choice(named.ANY_LEFT)
        replace = sfn.Map.jsonata(
            self,
            f"Map {named.REPLACE_NODES}",
            state_name=named.REPLACE_NODES,
            items=sfn.ProvideItems.jsonata(jsonata("$states.input.output.wave")),
            jsonata_max_concurrency=jsonata(f"{plan}.surge"),
            outputs={},
            # A variable, because the gate may look more than once, and must know of them each time.
            assign={"failures": jsonata("[$states.result[$exists(failure)]]")},
        )
        gate = states.step(
            named.GATE,
            "health_gate",
            {
                **roll_fields,
                "unready": jsonata(f"{plan}.unready"),
                "redis": jsonata(f"{plan}.redis"),
                "failures": jsonata("$failures"),
            },
            catch=gate_failed,
        )
        how_did_it_end = states.choice("How did the roll end?")

        begin.next(started_by)
        started_by.when(states.when("$exists($states.input.'detail-type')"), receive.start, comment="by an event")
        started_by.otherwise(check)
        receive.then(change_outcome)
        change_outcome.when(
            states.when("$states.input.output.next = 'plan'"), check, comment="it settled, and this roll plans"
        )
        change_outcome.otherwise(states.succeed("Nothing to do here"))
        check.next(plan_roll)
        plan_roll.next(what_now)
        what_now.when(
            states.when(f"{plan}.outcome = 'roll' and {plan}.approval and $not($approved)"),
            approval,
            comment="approval asked for",
        )
        what_now.when(
            states.when(f"{plan}.outcome = 'roll' or {plan}.leftovers"),
            take_lock.start,
            comment="nodes to replace, or marks of a dead roll",
        )
        what_now.when(states.when("$locked"), settle.start, comment="nothing left to do, but the lock is ours")
        what_now.otherwise(look)
        approval.next(take_lock.start)
        take_lock.then(plan_old)
        plan_old.when(states.when("$states.input.output.waited"), plan_roll, comment="the lock was waited for")
        plan_old.when(
            states.when(f"{plan}.outcome != 'roll'"),
            settle.start,
            comment="nothing to roll: only a dead roll's marks to put back",
        )
        plan_old.otherwise(rehearse)
        before = states.hooks(named.HOOKS_BEFORE_ROLL, Moment.BEFORE_ROLL, {}, settings, catch=settle)
        if before:
            before.then(pause.start)
        rehearse.next(before.start if before else pause.start)
        pause.then(taint.start)
        taint.then(resume.start)
        if settings.dead_nodes.replace:
            unjoined = states.step(
                named.REPLACE_UNJOINED, "replace_unjoined", {"unjoined": jsonata(f"{plan}.unjoined")}, catch=settle
            )
            resume.then(unjoined.start)
            unjoined.then(pick)
        else:
            resume.then(pick)
        pick.next(any_left)
        any_left.when(states.when("$count($states.input.output.wave) = 0"), settle.start, comment="none left")
        any_left.otherwise(replace)
        replace.item_processor(self._replace_one(states, roll_node))
        replace.next(gate.start)
        gate.then(pick)
        restore.then(restored)
        report.next(how_did_it_end)
        how_did_it_end.when(
            states.when(f"$failure != null and $failure.Error = '{Aborted.__name__}'"),
            states.fail("Aborted by a person", jsonata("$failure.Error"), jsonata(REASON)),
            comment="a person ended it",
        )
        how_did_it_end.when(
            states.when(f"$failure != null and $failure.Error = '{NOT_APPROVED}'"),
            states.fail("Not approved", NOT_APPROVED, jsonata(REASON)),
            comment="refused, or no answer",
        )
        how_did_it_end.when(
            states.when("$failure != null"),
            states.fail("Failed", jsonata("$failure.Error"), jsonata(REASON)),
            comment="a step failed",
        )
        how_did_it_end.when(
            states.when(f"{plan}.outcome = 'blocked' and $not({plan}.dry_run)"),
            states.fail("Blocked", "Blocked", jsonata(REASON)),
            comment="the plan is blocked",
        )
        how_did_it_end.otherwise(states.succeed("Done"))
        report.add_catch(
            states.fail("Not reported", jsonata("$states.input.Error"), jsonata(cause_of("$states.input"))),
            errors=["States.ALL"],
        )

        longest = settings.deadlines.roll + settings.deadlines.receive_change
        self.machine = states.machine(
            name,
            begin,
            Duration.seconds(longest),
            log_group,
            # The operator's command reads the deployed settings here.
            comment=settings.model_dump_json(exclude={"bucket", "topic"}),
        )

    @staticmethod
    def _put_back(states: "StateFactory", then: "StepStates") -> sfn.IChainable:
        """What a gate that did not open leads to first; the failure that is told stays the gate's."""
        put_back = states.call(
            named.PUT_BACK_VERSION,
            "put_back_version",
            {
                "former": jsonata("$plan.output.former"),
                "targets": jsonata("$plan.output.targets"),
                "waves": jsonata("$waves"),
                "failure": jsonata("$failure"),
                "failures": jsonata("$failures"),
            },
            # A list of one is the thing itself to JSONata.
            assign={
                "backGroups": jsonata(f"[{ANSWER}.output.groups]"),
                "putBack": jsonata(f"[{ANSWER}.output.said]"),
            },
        )
        put_back.add_catch(
            then.start,
            errors=["States.ALL"],
            assign={
                **KEEP_FIRST,
                "putBack": jsonata(f"['not every version could be put back: ' & {cause_of('$states.errorOutput')}]"),
            },
        )
        put_back.next(then.start)
        return put_back

    @staticmethod
    def _roll_back(states: "StateFactory", machine: str, report: tasks.LambdaInvoke) -> sfn.Choice:
        """Starts the second roll, once: its name is made of this one's, and Step Functions takes a name once."""
        arn = Stack.of(states.scope).format_arn(
            service="states", resource="stateMachine", resource_name=machine, arn_format=ArnFormat.COLON_RESOURCE_NAME
        )
        # One that is merely cut could be another's, and be taken for the answer of a start that was lost.
        name = f"'rollback-' & {shortened('$roll', 71)}"
        start = tasks.StepFunctionsStartExecution.jsonata(
            states.scope,
            f"Task {named.START_ROLLBACK}",
            state_name=named.START_ROLLBACK,
            state_machine=sfn.StateMachine.from_state_machine_arn(states.scope, "Itself", arn),
            name=jsonata(name),
            input=sfn.TaskInput.from_object(
                {
                    "groups": jsonata("$backGroups"),
                    "rolls_back": jsonata("$roll"),
                    "trigger": jsonata("'the failed roll ' & $roll"),
                    "accept": jsonata("$plan.output.accept"),
                    "surge": jsonata("$plan.output.surge"),
                    "approval": jsonata("false"),
                }
            ),
            outputs={},
            assign={"rollback": jsonata(name)},
        )
        _started_again(start)
        # An answer was lost, and the second roll has ended meanwhile.
        start.add_catch(
            report,
            errors=[ALREADY_THERE],
            outputs={},
            assign={"rollback": jsonata(name)},
        )
        start.add_catch(
            report, errors=["States.ALL"], outputs={}, assign={"notStarted": jsonata("$states.errorOutput")}
        )
        start.next(report)
        any_back = states.choice("Was a version put back?")
        any_back.when(states.when("$count($backGroups) > 0"), start, comment="yes: its new nodes are replaced again")
        any_back.otherwise(report)
        return any_back

    @staticmethod
    def _replace_one(states: "StateFactory", roll_node: sfn.IStateMachine) -> sfn.IChainable:
        """One node of a wave: an execution of its own, so that its history has room of its own."""
        child = tasks.StepFunctionsStartExecution.jsonata(
            states.scope,
            f"Task {named.REPLACE_NODE}",
            state_name=named.REPLACE_NODE,
            state_machine=roll_node,
            integration_pattern=sfn.IntegrationPattern.RUN_JOB,
            associate_with_parent=True,
            # Names hold 80 characters, and are unique per machine: an instance is replaced once in a roll.
            name=jsonata(f"$states.input.instance & '-' & {shortened('$roll', ROLL_IN_NODE)}"),
            input=sfn.TaskInput.from_object(
                {
                    "roll": jsonata("$roll"),
                    "instance": jsonata("$states.input.instance"),
                    "node": jsonata("$states.input.node"),
                    "group": jsonata("$states.input.group"),
                }
            ),
            outputs={"node": jsonata("$states.input.node")},
        )
        _started_again(child)
        not_replaced = states.state("Node not replaced")
        child.add_catch(
            not_replaced,
            errors=["States.ALL"],
            outputs={"node": jsonata("$states.input.node"), "failure": jsonata("$states.errorOutput")},
        )
        return child


class RollNode(Construct):
    """One execution per node."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        functions: Mapping[str, lambda_.IFunction],
        settings: Settings,
        name: str,
        roll_name: str,
        log_group: logs.ILogGroup,
    ) -> None:
        super().__init__(scope, construct_id)
        states = StateFactory(self, functions)
        node_fields = {
            "instance": jsonata("$instance"),
            "node": jsonata("$node"),
            "group": jsonata("$group"),
            "replacement": jsonata("$replacement"),
            "replacement_node": jsonata("$replacementNode"),
        }

        started_by = states.choice("Started by a roll?")
        own_roll = self._start_roll(states, roll_name, states.succeed("A roll was started for this node"))
        begin = states.state(
            "Read which node",
            assign={
                "roll": jsonata("$states.input.roll"),
                "instance": jsonata("$states.input.instance"),
                "node": jsonata("$states.input.node"),
                "group": jsonata("$states.input.group"),
                "replacement": jsonata("''"),
                "replacementNode": jsonata("''"),
                "redisGroup": jsonata("''"),
                "since": NULL,
                "notified_at": NULL,
                "failure": NULL,
            },
        )
        record = states.call(
            named.RECORD,
            "record_node",
            {**node_fields, "execution": jsonata("$states.context.Execution.Id"), "failure": jsonata("$failure")},
        )
        after = states.hooks(named.HOOKS_AFTER_NODE, Moment.AFTER_NODE, node_fields, settings)
        if after:
            after.start.add_catch(record, errors=["States.ALL"], assign=KEEP_FIRST)
            after.then(record)
        ending = after.start if after else record
        before = states.hooks(named.HOOKS_BEFORE_NODE, Moment.BEFORE_NODE, node_fields, settings, catch=ending)
        launch = states.step(
            named.LAUNCH, "launch_replacement", node_fields, catch=ending,
            assign={"replacement": _once("replacement", "replacement")},
        )  # fmt: skip
        await_ready = states.step(
            named.AWAIT_READY, "await_ready", node_fields, catch=ending,
            assign={"replacementNode": _once("replacement_node", "replacementNode")},
        )  # fmt: skip
        close = states.step(named.CLOSE_NODE, "taint_no_schedule", node_fields, catch=ending)
        redis = self._migrate_redis(states, node_fields, ending)
        leave = states.step(named.LEAVE_LOAD_BALANCERS, "leave_load_balancers", node_fields, catch=ending)
        evict = states.step(named.EVICT, "evict", node_fields, catch=ending)
        drained = states.step(named.AWAIT_LOAD_BALANCERS, "await_load_balancers", node_fields, catch=ending)
        detached = states.step(named.AWAIT_VOLUMES, "await_volumes", node_fields, catch=ending)
        terminate = states.step(named.TERMINATE, "terminate", node_fields, catch=ending)
        replaced = states.choice("Was it replaced?")

        started_by.when(states.when("$exists($states.input.roll)"), begin, comment="by a roll")
        started_by.otherwise(own_roll)
        begin.next(before.start if before else launch.start)
        if before:
            before.then(launch.start)
        launch.then(await_ready.start)
        await_ready.then(close.start)
        close.then(redis.start)
        redis.settled.when(states.when("$states.input.output.next = 'none'"), leave.start, comment="nothing")
        leave.then(evict.start)
        evict.then(drained.start)
        drained.then(detached.start)
        detached.then(terminate.start)
        terminate.then(ending)
        reason = jsonata(cause_of("$states.errorOutput"))
        record.add_catch(replaced, errors=["States.ALL"], outputs={"reason": reason})
        record.next(replaced)
        replaced.when(
            states.when("$failure != null"),
            states.fail(
                "Not replaced", jsonata("$failure.Error"), jsonata(f"$substring({REASON}, 0, {LONGEST_CAUSE})")
            ),
            comment="a step failed",
        )
        replaced.otherwise(states.succeed("Replaced"))

        deadlines = settings.deadlines
        longest = sum(
            getattr(deadlines, step)
            for step in (
                "launch_replacement", "await_ready", "taint_no_schedule", "inspect_redis",
                *(action for _, action in REDIS_STATES.values()),
                "leave_load_balancers", "evict", "await_load_balancers", "await_volumes", "terminate",
            )
        )  # fmt: skip
        longest += deadlines.run_hooks * (settings.asks(Moment.BEFORE_NODE) + settings.asks(Moment.AFTER_NODE))
        # While a roll is paused no deadline runs: a node may take as long as its roll.
        self.machine = states.machine(
            name, started_by, Duration.seconds(max(longest + 3600, deadlines.roll)), log_group
        )

    @staticmethod
    def _migrate_redis(states: "StateFactory", node_fields: Mapping[str, str], record: sfn.IChainable) -> "RedisPart":
        """Redis pods leave first, each with its role: look which is next, do what it needs, look again."""
        node_fields = {**node_fields, "redis_group": jsonata("$redisGroup")}
        look = states.step(
            named.INSPECT_REDIS, "inspect_redis", node_fields, catch=record,
            assign={"redisGroup": _once("group", "redisGroup")},
        )  # fmt: skip
        what = states.choice("What do the Redis pods need?")
        look.then(what)
        for name, (module, action) in REDIS_STATES.items():
            step = states.step(name, module, {**node_fields, "action": action}, catch=record)
            what.when(
                states.when(f"$states.input.output.next = '{action}'"), step.start, comment=action.replace("_", " ")
            )
            step.then(look.start)
        return RedisPart(look.start, what)

    @staticmethod
    def _start_roll(
        states: "StateFactory", roll_name: str, started: sfn.IChainable
    ) -> tasks.StepFunctionsStartExecution:
        """By hand, for one node: the same as a roll that names it, with lock, plan and restore. Its name is made of
        this execution's, so that none is started twice."""
        # The roll's machine needs this one's ARN, so this one knows the roll's by its name.
        arn = Stack.of(states.scope).format_arn(
            service="states",
            resource="stateMachine",
            resource_name=roll_name,
            arn_format=ArnFormat.COLON_RESOURCE_NAME,
        )
        mine = "$states.context.Execution.Name"
        # Names hold 80 characters, and a name that is cut could be another's.
        name = f"$length({mine}) <= 75 ? 'node-' & {mine} : {mine}"
        node = "$exists($states.input.instance) ? $states.input.instance : $states.input.node"
        start = tasks.StepFunctionsStartExecution.jsonata(
            states.scope,
            "Task Start a roll",
            state_name="Start a roll for this node",
            state_machine=sfn.StateMachine.from_state_machine_arn(states.scope, "Roll", arn),
            name=jsonata(name),
            input=sfn.TaskInput.from_object({"nodes": [jsonata(node)]}),
        )
        _started_again(start)
        # An answer was lost, and the roll has ended meanwhile.
        start.add_catch(started, errors=[ALREADY_THERE])
        start.next(started)
        return start


class Restore(Construct):
    """Puts everything back after a roll that could not; started by the watchdog, manually, or on a schedule.

    The clock's look also counts what is left behind, and finds a roll whose restore died too.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        functions: Mapping[str, lambda_.IFunction],
        settings: Settings,
        name: str,
        roll_name: str,
        log_group: logs.ILogGroup,
    ) -> None:
        super().__init__(scope, construct_id)
        states = StateFactory(self, functions)
        begin = states.state(
            "Read whose roll",
            assign={
                # The watchdog passes the dead roll's name; a manual start has its own.
                "roll": jsonata("$exists($states.input.roll) ? $states.input.roll : $states.context.Execution.Name"),
                "by": jsonata("$states.context.Execution.Name"),
                "restored": jsonata("[]"),
                "leftBehind": jsonata("[]"),
                "orphans": jsonata("[]"),
                "unlooked": NULL,
                "since": NULL,
                "notified_at": NULL,
            },
        )
        started_by = states.choice("Started by the clock?")
        look = states.call(
            named.FIND_ORPHANS,
            "find_orphans",
            {},
            assign={"roll": jsonata(f"{ANSWER}.output.dead != '' ? {ANSWER}.output.dead : $roll")},
        )
        any_dead = states.choice("Did a roll die?")
        settle = states.step(named.FINISH_MIGRATIONS, "settle_redis", {"by": jsonata("$by")}, catch=None)
        restore = states.step(
            named.RESTORE, "restore", {"by": jsonata("$by")}, catch=None,
            assign=TOLD_BY_RESTORE,
        )  # fmt: skip
        ours = states.choice("Was it ours to restore?")
        rolls = Stack.of(self).format_arn(
            service="states", resource="execution", resource_name=roll_name, arn_format=ArnFormat.COLON_RESOURCE_NAME
        )
        report = states.call(
            "Report for the roll",
            "report",
            {
                "stopped": jsonata("true"),
                "restored": jsonata("$restored"),
                "left_behind": jsonata("$leftBehind"),
                "orphans": jsonata("$orphans"),
                "unlooked": jsonata("$unlooked"),
                "execution": jsonata(f"'{rolls}:' & $roll"),
            },
            outputs=jsonata("$states.input"),
        )
        look_again = states.call(
            "Look for what is left",
            "find_orphans",
            {"ended": jsonata("true")},
            outputs=jsonata("$states.input"),
            assign={"orphans": jsonata(f"[{ANSWER}.output.orphans]")},
            attempts=3,
        )
        look_again.add_catch(
            report,
            errors=["States.ALL"],
            outputs=jsonata("$states.input"),
            assign={"unlooked": jsonata("$states.errorOutput")},
        )
        look_again.next(report)
        whose = states.choice("Is it a roll's?")
        # What was put back is put back, whether or not the message is sent.
        report.add_catch(ours, errors=["States.ALL"], outputs=jsonata("$states.input"))
        # A group that needs a person must not keep the rest from being put back.
        settle.start.add_catch(restore.start, errors=["States.ALL"], assign={"since": NULL, "notified_at": NULL})
        begin.next(started_by)
        started_by.when(states.when("$exists($states.input.look)"), look, comment="by the clock")
        started_by.otherwise(settle.start)
        look.next(any_dead)
        any_dead.when(
            states.when("$states.input.output.dead != ''"), settle.start, comment="a roll died and was not restored"
        )
        any_dead.otherwise(states.succeed("Looked"))
        settle.then(restore.start)
        restore.then(whose)
        whose.when(states.when("$roll != $by"), look_again, comment="yes, and it may have no report")
        whose.otherwise(ours)
        report.next(ours)
        ours.when(states.when("$states.input.output.ours"), states.succeed("Restored"), comment="yes")
        ours.otherwise(states.succeed("Nothing to restore"))
        longest = settings.deadlines.settle_redis + settings.deadlines.restore + 4 * READY_SECONDS
        self.machine = states.machine(name, begin, Duration.seconds(longest + 600), log_group)


SENTINEL_STATES = {
    "Move the replica": "move_replica",
    "Fail over to a replica": "fail_over",
    "Move the master pod": "move_master",
    "Attach the master pod as a replica": "attach_master",
    "Fail back to the master pod": "fail_back",
    "Refresh sentinels": "refresh_sentinels",
    "Move the sentinel": "move_sentinel",
}
"""State -> action: what a Sentinel group goes through, in the order of a master pod's move. One function does all."""

CLUSTER_STATES = {
    "Create the stand-in": "create_stand_in",
    "Join the stand-in and wait for its sync": "join_stand_in",
    "Fail over to the stand-in": "fail_over_to_stand_in",
    "Move the shard's pod": "move_shard_pod",
    "Wait for the pod's sync": "sync_shard_pod",
    "Fail back to the pod": "fail_back_to_shard_pod",
    "Remove the stand-in": "remove_stand_in",
    "Delete the stand-in": "delete_stand_in",
}
"""The same for a Redis Cluster."""

REDIS_STATES = {
    **{name: ("migrate_sentinel", action) for name, action in SENTINEL_STATES.items()},
    **{name: ("migrate_cluster", action) for name, action in CLUSTER_STATES.items()},
}
"""State -> step module, and which of its actions the state stands for."""

FAILED = {"failure": jsonata("$states.errorOutput"), "since": NULL, "notified_at": NULL}
"""What a Catch remembers; the next step's wait has not begun."""

KEEP_FIRST = FAILED | {"failure": jsonata("$failure = null ? $states.errorOutput : $failure")}
"""The same once the roll or the node is at its end: what ended it goes before what fails then."""


NO_ROLLBACK = {
    "backGroups": jsonata("[]"),
    "putBack": jsonata("[]"),
    "rollback": jsonata("''"),
    "notStarted": NULL,
}
"""Variables of a roll that may go back, as it begins."""

ROLLBACK_TOLD = {
    "put_back": jsonata("$putBack"),
    "rollback": jsonata("$rollback"),
    "not_started": jsonata("$notStarted"),
}
"""What the report is told of them."""


def _not_approved(settings: Settings) -> dict[str, str]:
    """What a Catch remembers of an answer that was no, or that did not come."""
    hours = f"{settings.deadlines.approval / 3600:g}"
    late = f"'there was no answer within {hours} h'"
    why = f"$states.errorOutput.Error = 'States.Timeout' ? {late} : $states.errorOutput.Cause"
    cause = f"'The roll was not approved: ' & ({why}) & '. Nothing was changed.'"
    return {**FAILED, "failure": jsonata(f"{{'Error': '{NOT_APPROVED}', 'Cause': {cause}}}")}


def _started_again(start: tasks.StepFunctionsStartExecution) -> None:
    """Has an execution started again after faults that pass; its name keeps it from being started twice."""
    start.add_retry(
        errors=list(START_RETRIED),
        interval=Duration.seconds(2),
        backoff_rate=2,
        max_attempts=6,
        max_delay=Duration.seconds(30),
        jitter_strategy=sfn.JitterType.FULL,
    )


def _once(output: str, variable: str) -> str:
    """Takes an output of the step's answer into a variable when it is there."""
    return jsonata(f"$exists({ANSWER}.output.{output}) ? {ANSWER}.output.{output} : ${variable}")


@dataclass(frozen=True)
class StepStates:
    """The three states of a step: `start` is the task; `then` says what follows once it is done."""

    start: tasks.LambdaInvoke
    question: sfn.Choice

    def then(self, following: sfn.IChainable) -> None:
        self.question.when(StateFactory.when("$states.input.status = 'done'"), following, comment="done")


@dataclass(frozen=True)
class RedisPart:
    """The states that migrate Redis: where they begin, and the question that leads out of them."""

    start: tasks.LambdaInvoke
    settled: sfn.Choice


@dataclass(frozen=True)
class StateFactory:
    """Makes the states of one machine. Names are sentences; construct ids are made of them."""

    scope: Construct
    functions: Mapping[str, lambda_.IFunction]

    def call(
        self,
        name: str,
        step: str,
        payload: Mapping[str, Any],
        *,
        assign: Mapping[str, Any] | None = None,
        retried: Sequence[str] = RETRIED,
        attempts: int = 8,
        **more: Any,
    ) -> tasks.LambdaInvoke:
        """One call of a step's function, run again after faults that pass; its answer is the state's output."""
        options: dict[str, Any] = {
            "outputs": jsonata(ANSWER),
            "task_timeout": sfn.Timeout.duration(CALL_TIMEOUT),
            "retry_on_service_exceptions": False,
        } | more
        task = tasks.LambdaInvoke.jsonata(
            self.scope,
            f"Task {name}",
            state_name=name,
            lambda_function=self.functions[step],
            payload=sfn.TaskInput.from_object({"roll": jsonata("$roll"), **payload}),
            assign=assign,
            **options,
        )
        task.add_retry(
            errors=list(retried),
            interval=Duration.seconds(1),
            backoff_rate=2,
            max_attempts=attempts,
            max_delay=Duration.seconds(30),
            jitter_strategy=sfn.JitterType.FULL,
        )
        # Without jitter: what is waited for is the function, and all of these together last READY_SECONDS.
        task.add_retry(
            errors=list(UNREADY),
            interval=Duration.seconds(2),
            backoff_rate=1.5,
            max_attempts=20,
            max_delay=Duration.seconds(20),
        )
        return task

    def step(
        self,
        name: str,
        step: str,
        payload: Mapping[str, Any],
        *,
        catch: "StepStates | sfn.IChainable | None",
        assign: Mapping[str, Any] | None = None,
    ) -> StepStates:
        """A step, called again until it is done. What it cannot get over goes to `catch`."""
        waits = {key: jsonata(f"{ANSWER}.status = 'wait' ? {ANSWER}.{key} : null") for key in ("since", "notified_at")}
        given = {"since": jsonata("$since"), "notified_at": jsonata("$notified_at"), **payload}
        task = self.call(name, step, given, assign={**waits, **(assign or {})})
        if catch is not None:
            task.add_catch(
                catch.start if isinstance(catch, StepStates) else catch, errors=["States.ALL"], assign=FAILED
            )
        question = self.choice(named.question(name))
        wait = sfn.Wait.jsonata(
            self.scope,
            f"Wait {name}",
            state_name=named.wait(name),
            time=sfn.WaitTime.seconds(jsonata("$states.input.wait_seconds")),
        )
        task.next(question)
        question.otherwise(wait)
        wait.next(task)
        return StepStates(task, question)

    def hooks(
        self,
        name: str,
        moment: Moment,
        payload: Mapping[str, Any],
        settings: Settings,
        *,
        catch: "StepStates | sfn.IChainable | None" = None,
    ) -> StepStates | None:
        """The step that asks the hooks of that moment; None where the settings have none, so that it costs nothing."""
        if not settings.asks(moment):
            return None
        given = {"when": moment.value, "failure": jsonata("$failure"), **payload}
        return self.step(name, "run_hooks", given, catch=catch)

    def choice(self, name: str) -> sfn.Choice:
        return sfn.Choice.jsonata(self.scope, f"Choice {name}", state_name=name)

    def state(self, name: str, *, assign: Mapping[str, Any] | None = None) -> sfn.Pass:
        return sfn.Pass.jsonata(self.scope, f"Pass {name}", state_name=name, assign=assign)

    def succeed(self, name: str) -> sfn.Succeed:
        return sfn.Succeed.jsonata(self.scope, f"Succeed {name}", state_name=name)

    def fail(self, name: str, error: str, cause: str) -> sfn.Fail:
        return sfn.Fail.jsonata(self.scope, f"Fail {name}", state_name=name, error=error, cause=cause)

    @staticmethod
    def when(expression: str) -> sfn.Condition:
        return sfn.Condition.jsonata(jsonata(expression))

    def machine(
        self,
        name: str,
        start: sfn.IChainable,
        timeout: Duration,
        log_group: logs.ILogGroup,
        comment: str | None = None,
    ) -> sfn.StateMachine:
        """The state machine; constructed last, because its states are rendered at that moment."""
        return sfn.StateMachine(
            self.scope,
            "Machine",
            state_machine_name=name,
            comment=comment,
            query_language=sfn.QueryLanguage.JSONATA,
            definition_body=sfn.DefinitionBody.from_chainable(start),
            timeout=timeout,
            tracing_enabled=True,
            logs=sfn.LogOptions(destination=log_group, level=sfn.LogLevel.ERROR, include_execution_data=False),
        )
