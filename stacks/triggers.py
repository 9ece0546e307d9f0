"""What starts a roll, and what looks after one that ended badly."""

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

NO_ERROR = {"errorCode": [{"exists": False}]}
"""CloudTrail writes failed and dry-run calls too; they carry an error code."""

_TEMPLATE = ("launchTemplateId", "launchTemplateName", "version")

LAUNCHES = (
    ("launchConfigurationName",),
    *(("launchTemplate", field) for field in _TEMPLATE),
    *(("mixedInstancesPolicy", "launchTemplate", "launchTemplateSpecification", field) for field in _TEMPLATE),
    ("mixedInstancesPolicy", "launchTemplate", "overrides", "instanceType"),
    ("mixedInstancesPolicy", "launchTemplate", "overrides", "imageId"),
    ("mixedInstancesPolicy", "launchTemplate", "overrides", "instanceRequirements", "vCpuCount", "min"),
    *(("mixedInstancesPolicy", "launchTemplate", "overrides", "launchTemplateSpecification", f) for f in _TEMPLATE),
)
"""What of a group's update says what it launches, as paths below requestParameters down to the leaves.

A pattern's `exists` sees leaves alone (EventBridge user guide, "exists matching"): asked for `launchTemplate`, an
object, it never matches. Of a list it sees the elements' leaves.
"""


def _exists(path: tuple[str, ...]) -> dict[str, object]:
    first, *rest = path
    return {first: _exists(tuple(rest)) if rest else [{"exists": True}]}


class Triggers(Construct):
    """EventBridge rules: a changed launch template starts Roll; a roll that was stopped or failed starts Restore.

    So does the clock, to look for what is left behind.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        roll: sfn.IStateMachine,
        restore: sfn.IStateMachine,
        look_every: Duration,
        topic: sns.ITopic,
    ) -> None:
        super().__init__(scope, construct_id)
        self._dead_letters = sqs.Queue(self, "DeadLetters", retention_period=Duration.days(14), enforce_ssl=True)
        undelivered = cloudwatch.Alarm(
            self,
            "Undelivered",
            alarm_description="An event started nothing after many attempts: a change is not handled, or a roll "
            "that ended badly is not restored. The queue has the event; start the roll or the restore manually with {}",
            metric=self._dead_letters.metric_approximate_number_of_messages_visible(period=Duration.minutes(5)),
            threshold=1,
            evaluation_periods=1,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        undelivered.add_alarm_action(actions.SnsAction(topic))
        self._rule(
            "LaunchTemplateChanged",
            "A launch template has a new version or another default",
            events.EventPattern(
                source=["aws.ec2"],
                detail_type=["AWS API Call via CloudTrail"],
                detail={"eventName": ["CreateLaunchTemplateVersion", "ModifyLaunchTemplate"], **NO_ERROR},
            ),
            roll,
        )
        self._rule(
            "GroupChanged",
            "An Auto Scaling group was pointed at another launch template, version or type",
            events.EventPattern(
                source=["aws.autoscaling"],
                detail_type=["AWS API Call via CloudTrail"],
                detail={
                    "eventName": ["UpdateAutoScalingGroup"],
                    "$or": [{"requestParameters": _exists(path)} for path in LAUNCHES],
                    **NO_ERROR,
                },
            ),
            roll,
        )
        self._rule(
            "RollEndedBadly",
            "A roll was stopped, timed out or failed: put everything back",
            events.EventPattern(
                source=["aws.states"],
                detail_type=["Step Functions Execution Status Change"],
                detail={
                    "stateMachineArn": [roll.state_machine_arn],
                    "status": ["ABORTED", "FAILED", "TIMED_OUT"],
                },
            ),
            restore,
            events.RuleTargetInput.from_object({"roll": events.EventField.from_path("$.detail.name")}),
        )
        self._rule(
            "LookForOrphans",
            "What dead rolls have left behind is counted, and restored if no restore has run",
            events.Schedule.rate(look_every),
            restore,
            events.RuleTargetInput.from_object({"look": True}),
        )

    def _rule(
        self,
        construct_id: str,
        description: str,
        when: events.EventPattern | events.Schedule,
        machine: sfn.IStateMachine,
        rule_input: events.RuleTargetInput | None = None,
    ) -> None:
        target = targets.SfnStateMachine(
            machine,
            input=rule_input,
            dead_letter_queue=self._dead_letters,
            max_event_age=Duration.hours(2),
            retry_attempts=20,
        )
        events.Rule(
            self,
            construct_id,
            description=description,
            event_pattern=None if isinstance(when, events.Schedule) else when,
            schedule=when if isinstance(when, events.Schedule) else None,
            targets=[target],
        )
