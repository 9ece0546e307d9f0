"""A small CDK app with one of everything that the lab's deployment has to carry: what the contract tests deploy.

Two state machines in JSONata: `Probe` starts one `ProbeNode` per item and waits for them; `ProbeNode` works until it is
done, retries and catches.
"""

import sys
from pathlib import Path
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_eks as eks
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from aws_cdk import aws_stepfunctions as sfn
from aws_cdk import aws_stepfunctions_tasks as tasks

STACK = "Probe"
CODE = Path(__file__).parent


class ProbeStack(cdk.Stack):
    """Functions, two state machines, rules, bucket, topic, queue, alarm, access entry."""

    def __init__(self, app: cdk.App) -> None:
        super().__init__(app, STACK)
        self._code = lambda_.Code.from_asset(
            str(CODE), exclude=["*", "!handlers", "!handlers/*.py"], ignore_mode=cdk.IgnoreMode.GIT
        )
        self._bucket = s3.Bucket(self, "Reports", removal_policy=cdk.RemovalPolicy.DESTROY)
        self._topic = sns.Topic(self, "Summaries")
        work = self._function("Work", "handlers.work.handler", timeout=3)
        identity = self._function("Identity", "handlers.identity.handler")
        restore = self._function("Restore", "handlers.restore.handler")
        restore.add_environment("BUCKET", self._bucket.bucket_name)
        self._bucket.grant_put(restore)
        node = self._node_machine(work)
        probe = self._probe_machine(node, identity)
        self._rules(probe, restore)
        cloudwatch.Alarm(
            self, "Failed", metric=probe.metric_failed(), threshold=1, evaluation_periods=1, alarm_name="probe-failed"
        )
        role = identity.role
        assert role is not None
        eks.CfnAccessEntry(
            self, "Access", cluster_name="demo", principal_arn=role.role_arn, kubernetes_groups=["probe:rollers"]
        )
        for name, value in {
            "ProbeArn": probe.state_machine_arn,
            "NodeArn": node.state_machine_arn,
            "Bucket": self._bucket.bucket_name,
            "Topic": self._topic.topic_arn,
            "Work": work.function_name,
            "Identity": identity.function_name,
        }.items():
            cdk.CfnOutput(self, name, value=value)

    def _function(self, name: str, handler: str, timeout: int = 10) -> lambda_.Function:
        return lambda_.Function(
            self,
            f"{name}Function",
            function_name=f"probe-{name.lower()}",
            runtime=lambda_.Runtime.PYTHON_3_13,
            handler=handler,
            code=self._code,
            timeout=cdk.Duration.seconds(timeout),
            memory_size=256,
            environment={"GREETING": "hello"},
            log_group=logs.LogGroup(self, f"{name}Logs", retention=logs.RetentionDays.ONE_WEEK),
        )

    def _node_machine(self, work: lambda_.IFunction) -> sfn.StateMachine:
        task = tasks.LambdaInvoke.jsonata(
            self,
            "Work on the node",
            lambda_function=work,
            payload=sfn.TaskInput.from_object(
                {"node": "{% $states.context.Execution.Input.node %}", "round": "{% $exists($rounds) ? $rounds : 0 %}"}
            ),
            assign={"rounds": "{% ($exists($rounds) ? $rounds : 0) + 1 %}", "answer": "{% $states.result.Payload %}"},
            retry_on_service_exceptions=False,
        )
        task.add_retry(errors=["Transient"], interval=cdk.Duration.seconds(1), max_attempts=2, backoff_rate=1)
        failed = sfn.Pass.jsonata(self, "Say what failed", outputs={"ok": False, "error": "{% $states.input.Error %}"})
        task.add_catch(failed, errors=["Permanent"])
        done = sfn.Pass.jsonata(self, "Say that it is done", outputs={"ok": True, "rounds": "{% $rounds %}"})
        wait = sfn.Wait.jsonata(self, "Wait for it", time=sfn.WaitTime.seconds("{% $answer.wait_seconds %}"))
        choice = sfn.Choice.jsonata(self, "Is it done?")
        choice.when(sfn.Condition.jsonata("{% $answer.status = 'done' %}"), done).otherwise(wait.next(task))
        task.next(choice)
        return self._machine("Node", task)

    def _probe_machine(self, node: sfn.IStateMachine, identity: lambda_.IFunction) -> sfn.StateMachine:
        child = tasks.StepFunctionsStartExecution.jsonata(
            self,
            "Run one node",
            state_machine=node,
            integration_pattern=sfn.IntegrationPattern.RUN_JOB,
            input=sfn.TaskInput.from_object({"node": "{% $states.input %}"}),
            outputs="{% $states.result.Output %}",
        )
        each = sfn.Map.jsonata(
            self,
            "For each node",
            items=sfn.ProvideItems.jsonata("{% $nodes %}"),
            max_concurrency=40,
            outputs={"ok": "{% $count($states.result[ok]) %}", "rounds": "{% $sum($states.result.rounds) %}"},
        )
        each.item_processor(child)
        plan = tasks.LambdaInvoke.jsonata(
            self,
            "Say who is asking",
            lambda_function=identity,
            payload=sfn.TaskInput.from_object({}),
            assign={"nodes": "{% $exists($states.input.nodes) ? $states.input.nodes : [] %}"},
        )
        report = tasks.CallAwsService.jsonata(
            self,
            "Write the report",
            service="s3",
            action="putObject",
            iam_resources=[self._bucket.arn_for_objects("*")],
            parameters={
                "Bucket": self._bucket.bucket_name,
                "Key": "{% $states.context.Execution.Name & '.json' %}",
                "Body": "{% $states.input %}",
            },
            outputs="{% $states.input %}",
        )
        tell = tasks.SnsPublish.jsonata(
            self,
            "Tell about it",
            topic=self._topic,
            message=sfn.TaskInput.from_object({"done": "{% $states.input %}"}),
            outputs="{% $states.input %}",
        )
        return self._machine("Probe", plan.next(each).next(report).next(tell))

    def _machine(self, name: str, start: sfn.IChainable) -> sfn.StateMachine:
        return sfn.StateMachine(
            self,
            f"{name}Machine",
            state_machine_name=f"probe-{name.lower()}",
            definition_body=sfn.DefinitionBody.from_chainable(start),
            query_language=sfn.QueryLanguage.JSONATA,
            logs=sfn.LogOptions(destination=logs.LogGroup(self, f"{name}MachineLogs"), level=sfn.LogLevel.ERROR),
        )

    def _rules(self, probe: sfn.IStateMachine, restore: lambda_.IFunction) -> None:
        dead_letters = sqs.Queue(self, "DeadLetters")
        trail: dict[str, Any] = {"detail_type": ["AWS API Call via CloudTrail"]}
        events.Rule(
            self,
            "TemplateChanged",
            event_pattern=events.EventPattern(
                source=["aws.ec2"],
                detail={
                    "eventSource": ["ec2.amazonaws.com"],
                    "eventName": ["CreateLaunchTemplateVersion", "ModifyLaunchTemplate"],
                    "errorCode": [{"exists": False}],
                },
                **trail,
            ),
            targets=[targets.SfnStateMachine(probe, dead_letter_queue=dead_letters)],
        )
        events.Rule(
            self,
            "ProbeEnded",
            event_pattern=events.EventPattern(
                source=["aws.states"],
                detail_type=["Step Functions Execution Status Change"],
                detail={"status": ["ABORTED", "FAILED"], "stateMachineArn": [probe.state_machine_arn]},
            ),
            targets=[
                targets.LambdaFunction(
                    restore,
                    event=events.RuleTargetInput.from_object(
                        {
                            "execution": events.EventField.from_path("$.detail.executionArn"),
                            "why": f"it was {events.EventField.from_path('$.detail.status')}",
                        }
                    ),
                )
            ],
        )
        restore.add_permission("Events", principal=iam.ServicePrincipal("events.amazonaws.com"))


def synthesize(directory: str) -> None:
    """Writes the cloud assembly into `directory`."""
    app = cdk.App(outdir=directory, analytics_reporting=False)
    ProbeStack(app)
    app.synth()


if __name__ == "__main__":
    synthesize(sys.argv[1])
