"""What tells people how rolls go: the workflow's log group, and alarms on the topic."""

from collections.abc import Sequence

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_sns as sns
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct


class Observability(Construct):
    """An alarm for every machine that fails, is stopped or times out."""

    def __init__(
        self, scope: Construct, construct_id: str, *, machines: Sequence[sfn.StateMachine], topic: sns.ITopic
    ) -> None:
        super().__init__(scope, construct_id)
        for machine in machines:
            name = machine.node.scope.node.id if machine.node.scope else machine.node.id
            ended_badly = cloudwatch.MathExpression(
                expression="failed + timedOut + aborted",
                using_metrics={
                    "failed": machine.metric_failed(),
                    "timedOut": machine.metric_timed_out(),
                    "aborted": machine.metric_aborted(),
                },
                period=Duration.minutes(1),
            )
            alarm = cloudwatch.Alarm(
                self,
                f"{name}EndedBadly",
                alarm_description=f"{name}: an execution failed, timed out or was stopped",
                metric=ended_badly,
                threshold=1,
                evaluation_periods=1,
                comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
                treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
            )
            alarm.add_alarm_action(actions.SnsAction(topic))
