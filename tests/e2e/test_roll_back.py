"""A roll whose gate does not open goes back by itself, in the lab under traffic."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from eks_rolling.observed.marks import GROUP_PUT_BACK
from lab.application import deploy
from lab.cluster_state import ClusterState
from lab.lifecycle import running_lab
from lab.operator import Operator, operator_of
from lab.view import LineView
from tests.e2e.conftest import SETTINGS, small_spec
from tests.waiting import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800), pytest.mark.xdist_group("back")]

ALARM = "shop-errors"


@pytest.fixture(scope="module")
def lab_with_a_way_back(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """A group that names its launch template's default version, and one that names a number of another template."""
    small = small_spec()
    by_default, by_number, *others = small.groups
    groups = (
        by_default.model_copy(update={"size": 1, "launch_template": "default", "launch_template_version": "$Default"}),
        by_number.model_copy(update={"launch_template": "numbered", "launch_template_version": "1"}),
        *others,
    )
    settings = {
        **SETTINGS,
        "alarms": [ALARM],
        "debounce_seconds": 3,
        "deadlines": {"health_gate": 20},
        "roll_back": {"enabled": True, "node_roles": ["arn:aws:iam::123456789012:role/nodes"]},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EKS_ROLLING_LABS", str(tmp_path_factory.mktemp("labs")))
        with running_lab(small.model_copy(update={"cluster": "back", "groups": groups}), "back") as lab:
            deploy(lab, settings)
            with operator_of(lab) as operator:
                operator.wait_for_workloads()
                operator.rolls.client("cloudwatch").put_metric_alarm(
                    AlarmName=ALARM, MetricName="Errors", Namespace="Shop", Statistic="Sum", Period=60,
                    EvaluationPeriods=1, Threshold=1.0, ComparisonOperator="GreaterThanThreshold",
                )  # fmt: skip
                yield operator


@pytest.mark.long
def test_a_gate_that_does_not_open_puts_both_groups_back_and_no_client_sees_any_of_it(
    lab_with_a_way_back: Operator, view: LineView
) -> None:
    """N1, R1, R2; and the events of what the roll itself puts back bring nothing new."""
    operator = lab_with_a_way_back
    rolls = operator.rolls
    before = operator.settled_state()
    began = time.time()
    with operator.traffic():
        alarm(operator, "ALARM")
        new_versions(operator)
        (first,) = until(lambda: at_work(operator, began), "one of the executions that the changes started has planned")
        failed = operator.follow(first, view.show, within_seconds=300)
        alarm(operator, "OK")
        name = failed.report["rollback"]
        second = next(e for e in rolls.all_since(began) if e.endswith(f":{name}"))
        named = operator.follow(second, view.show, within_seconds=300)
        # The put back versions started some more.
        rolls.wait_for_all_since(began, within_seconds=600)
    assert (failed.status, failed.report["replaced"]) == ("FAILED", 2), failed.reason
    assert [said.partition(": ")[2].partition(" from ")[0] for said in failed.report["put_back"]] == ["back", "back"]
    # The event of what was put back may have planned first: then that roll does the work, and the named one finds none.
    told = [rolls.outcome(e) for e in rolls.all_since(began)]
    (back,) = [o for o in told if o.report.get("rolls_back") == failed.roll and o.report.get("replaced")]
    assert (named.status, back.status) == ("SUCCEEDED", "SUCCEEDED"), (named.reason, back.reason)
    assert back.report["replaced"] == 2
    assert [back.report[part] for part in ("left_behind", "orphans", "gaps")] == [[], [], []]
    after = operator.settled_state()
    assert all(GROUP_PUT_BACK in after.groups[name]["tags"] for name in ("workers-a", "workers-b"))
    assert without_record(after).restored(before), (before, after)
    assert {n.version for n in after.nodes} == {"1"}
    assert not {n.instance for n in before.nodes} & {n.instance for n in after.nodes}
    verdict = operator.judge(None)
    assert (verdict.failed, verdict.errors, verdict.jobs["lost"]) == (0, {}, 0)


def without_record(state: ClusterState) -> ClusterState:
    """The state without what is meant to stay on groups: which version was put back."""
    groups = {
        name: {**group, "tags": {k: v for k, v in group["tags"].items() if k != GROUP_PUT_BACK}}
        for name, group in state.groups.items()
    }
    return replace(state, groups=groups)


def at_work(operator: Operator, began: float) -> list[str]:
    """The rolls since then that have planned: others wait for them, or have joined them."""
    return [e for e in operator.rolls.all_since(began) if operator.rolls.document(e.rpartition(":")[2], "plan.json")]


def alarm(operator: Operator, state: str) -> None:
    operator.rolls.client("cloudwatch").set_alarm_state(AlarmName=ALARM, StateValue=state, StateReason="a test")


def new_versions(operator: Operator) -> None:
    """Both groups are given version 2, as a person would: by the default version, and by the number."""
    rolls = operator.rolls
    by_default, by_number = (rolls.publish_version(template) for template in ("default", "numbered"))
    rolls.ec2.modify_launch_template(LaunchTemplateName="default", DefaultVersion=str(by_default))
    named = {"LaunchTemplateName": "numbered", "Version": str(by_number)}
    rolls.autoscaling.update_auto_scaling_group(AutoScalingGroupName="workers-b", LaunchTemplate=named)  # type: ignore[arg-type]  # the stubs want a TypedDict
