"""How rolls are going: a dashboard, and alarms whose messages go to the topic."""

from collections.abc import Mapping, Sequence

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from eks_rolling.documents.remedies import typed
from eks_rolling.documents.report import Ending
from eks_rolling.report.metrics import CLUSTER, NAMESPACE, SPLIT, Name
from eks_rolling.settings import Settings

MINUTE = Duration.minutes(1)
MINUTES = Duration.minutes(5)


class Observability(Construct):
    """The dashboard of one cluster's rolls, and an alarm for whatever a person has to look at."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Settings,
        machines: Mapping[str, sfn.StateMachine],
        functions: Mapping[str, lambda_.Function],
        topic: sns.ITopic,
    ) -> None:
        super().__init__(scope, construct_id)
        self._cluster = settings.cluster
        self._action = actions.SnsAction(topic)
        self._machines = machines
        self._functions = functions
        named = typed("rolls", cluster=self._cluster)
        self._alarm(
            "RollFailed",
            f"{self._cluster}: a roll failed or took too long; the message of the same minute names it, and so does "
            f"{named}. What people abort, refuse or cancel, and what a plan blocks, fires no alarm",
            self._failures(machines["Roll"]),
        )
        self._alarm(
            "RestoreEndedBadly",
            f"{self._cluster}: what a roll had changed could not be put back; {named} names the roll, and "
            f"{typed('start', cluster=self._cluster)} finishes it",
            _ended_badly("Restore", machines["Restore"]),
        )
        self._alarm_errors()
        self._alarm(
            "AutoscalerPaused",
            f"{self._cluster}: cluster-autoscaler has been paused for longer than a roll may take; "
            f"{typed('restore', cluster=self._cluster)} puts it back",
            self._metric(Name.AUTOSCALER_PAUSED_SECONDS, statistic="Maximum", period=MINUTES),
            threshold=settings.deadlines.roll,
        )
        self._dashboard()

    def _alarm(
        self, construct_id: str, says: str, metric: cloudwatch.IMetric, threshold: float = 1
    ) -> cloudwatch.Alarm:
        """Fires once the metric reaches the threshold; without data there is nothing to say."""
        alarm = cloudwatch.Alarm(
            self,
            construct_id,
            alarm_description=says,
            metric=metric,
            threshold=threshold,
            evaluation_periods=1,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        alarm.add_alarm_action(self._action)
        return alarm

    def _failures(self, roll: sfn.StateMachine) -> cloudwatch.MathExpression:
        """Rolls that failed by their own report, and those that ran out of time before they could write one."""
        failed = cloudwatch.Metric(
            namespace=NAMESPACE,
            metric_name=Name.ROLLS_ENDED,
            dimensions_map={CLUSTER: self._cluster, SPLIT[Name.ROLLS_ENDED]: Ending.FAILED},
            statistic="Sum",
            period=MINUTE,
        )
        return cloudwatch.MathExpression(
            expression="failed + timedOut",
            using_metrics={"failed": failed, "timedOut": roll.metric_timed_out(period=MINUTE)},
            period=MINUTE,
        )

    def _alarm_errors(self) -> None:
        """A call that fails is made again; five in five minutes are too many. An alarm sums at most ten metrics."""
        steps = list(self._functions)
        for start in range(0, len(steps), 10):
            some = steps[start : start + 10]
            errors = {step.replace("_", ""): self._functions[step].metric_errors(period=MINUTES) for step in some}
            self._alarm(
                f"FunctionErrors{start // 10 + 1}",
                f"{self._cluster}: five calls of functions failed within five minutes, of {', '.join(some)}; the "
                "workflow makes them again, their logs say why",
                cloudwatch.MathExpression(expression=" + ".join(errors), using_metrics=errors, period=MINUTES),
                threshold=5,
            )

    def _dashboard(self) -> None:
        rolls = {"rolls begun": self._metric(Name.ROLLS_STARTED), "nodes replaced": self._metric(Name.NODES_REPLACED)}
        cloudwatch.Dashboard(
            self,
            "Dashboard",
            default_interval=Duration.hours(12),
            widgets=[
                [
                    _chart("Rolls and nodes", {**rolls, "nodes failed": self._metric(Name.NODES_FAILED)}),
                    _chart("Rolls by how they ended", {"": self._split(Name.ROLLS_ENDED)}),
                ],
                [
                    _chart("Seconds waited, by what for", {"": self._split(Name.WAIT_SECONDS)}, stacked=True),
                    _chart(
                        "Evictions",
                        {
                            "evicted": self._metric(Name.PODS_EVICTED),
                            "refused": self._metric(Name.EVICTIONS_REFUSED),
                        },
                    ),
                ],
                [
                    _chart(
                        "Seconds in which a Redis master took no writes",
                        {"longest": self._metric(Name.REDIS_STALL_SECONDS, statistic="Maximum")},
                    ),
                    _chart("Faults of steps", {"": self._split(Name.FAULTS)}),
                ],
                [
                    _chart(
                        "Functions: errors and throttles",
                        {"errors": self._sum("Errors"), "throttles": self._sum("Throttles")},
                    ),
                    _chart("Functions: slowest call, milliseconds", {"slowest": self._sum("Duration", "MAX")}),
                ],
                [
                    _chart("Executions that ended badly", {n: _ended_badly(n, m) for n, m in self._machines.items()}),
                    _chart(
                        "Left behind by dead rolls",
                        {
                            "things": self._metric(Name.ORPHANS, statistic="Maximum"),
                            "seconds of cluster-autoscaler's pause": self._metric(
                                Name.AUTOSCALER_PAUSED_SECONDS, statistic="Maximum"
                            ),
                        },
                    ),
                ],
            ],
        )

    def _metric(self, name: Name, statistic: str = "Sum", period: Duration = MINUTES) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace=NAMESPACE,
            metric_name=name,
            dimensions_map={CLUSTER: self._cluster},
            statistic=statistic,
            period=period,
        )

    def _split(self, name: Name) -> cloudwatch.MathExpression:
        """A metric by its second dimension's values, whichever there are."""
        searched = f'{{{NAMESPACE},{CLUSTER},{SPLIT[name]}}} MetricName="{name}" {CLUSTER}="{self._cluster}"'
        return cloudwatch.MathExpression(
            expression=f"SEARCH('{searched}', 'Sum', 300)", using_metrics={}, period=MINUTES, label=""
        )

    def _sum(self, metric_name: str, of: str = "SUM") -> cloudwatch.MathExpression:
        """A metric over all functions. Not searched for by the beginning of their names: CloudFormation cuts that where
        the names would be too long, and other stacks' may begin alike."""
        statistic = "Maximum" if of == "MAX" else "Sum"
        metrics: dict[str, cloudwatch.IMetric] = {
            f"{metric_name.lower()}{number}": function.metric(metric_name, statistic=statistic, period=MINUTES)
            for number, function in enumerate(self._functions.values())
        }
        return cloudwatch.MathExpression(
            expression=f"{of}([{', '.join(metrics)}])", using_metrics=metrics, period=MINUTES
        )


def _ended_badly(name: str, machine: sfn.StateMachine) -> cloudwatch.MathExpression:
    metrics: dict[str, cloudwatch.IMetric] = {
        f"failed{name}": machine.metric_failed(),
        f"timedOut{name}": machine.metric_timed_out(),
        f"aborted{name}": machine.metric_aborted(),
    }
    return cloudwatch.MathExpression(expression=" + ".join(metrics), using_metrics=metrics, period=MINUTE)


def _chart(title: str, metrics: Mapping[str, cloudwatch.IMetric], *, stacked: bool = False) -> cloudwatch.GraphWidget:
    """A chart of half the dashboard's width; the keys are the lines' labels."""
    lines: Sequence[cloudwatch.IMetric] = [_labelled(metric, label) for label, metric in metrics.items()]
    return cloudwatch.GraphWidget(title=title, left=lines, stacked=stacked, width=12, height=6)


def _labelled(metric: cloudwatch.IMetric, label: str) -> cloudwatch.IMetric:
    match metric:
        case cloudwatch.Metric() | cloudwatch.MathExpression() if label:
            return metric.with_(label=label)
        case _:
            return metric
