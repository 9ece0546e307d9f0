"""Corrections to how moto's interpreter calls services out of Task states, nested executions foremost."""

import functools
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

import boto3
from botocore.config import Config
from moto.core.models import botocore_stubber
from moto.settings import moto_server_port
from moto.stepfunctions.parser.api import ExecutionStatus, HistoryEventType, TaskFailedEventDetails
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import FailureEvent, FailureEventException
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import StatesErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import StatesErrorNameType
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service import StateTaskService
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_aws_sdk import (
    StateTaskServiceAwsSdk,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_callback import (
    StateTaskServiceCallback,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_sfn import (
    StateTaskServiceSfn,
)
from moto.stepfunctions.parser.asl.eval.callback.callback import CallbackConsumerTimeout, CallbackEndpoint
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.utils import boto_client
from moto.stepfunctions.parser.asl.utils.encoding import to_json_str
from moto.stepfunctions.parser.models import stepfunctions_parser_backends
from moto.sts.models import sts_backends

from lab.aws import ACCOUNT_ID
from lab.aws.compat.jsonata import aws_timestamp
from lab.aws.compat.registry import around, correction, replace

# An aws-sdk integration's service, as the definition writes it: its name in boto3, its name in error names.
_BOTO_NAMES = {
    "elasticloadbalancing": "elb",
    "elasticloadbalancingv2": "elbv2",
    "eventbridge": "events",
    "cloudwatchlogs": "logs",
}
_ERROR_NAMES = {
    "autoscaling": "AutoScaling",
    "cloudwatch": "CloudWatch",
    "cloudwatchlogs": "CloudWatchLogs",
    "ec2": "Ec2",
    "eks": "Eks",
    "elasticloadbalancing": "ElasticLoadBalancing",
    "elasticloadbalancingv2": "ElasticLoadBalancingV2",
    "eventbridge": "EventBridge",
    "lambda": "Lambda",
    "s3": "S3",
    "sns": "Sns",
    "sts": "Sts",
}


@correction
def clients_are_made_once() -> None:
    """Not a matter of AWS: moto makes a boto3 client for each task, which costs more than all else a task does.

    Each role has clients of its own, with credentials of that role, as AWS assumes the state machine's role; moto calls
    everything with one invented key.
    """
    making = threading.Lock()

    @functools.lru_cache(maxsize=256)
    def make(service: str, region: str, role_arn: str | None) -> Any:
        # In a process that boto3 is mocked in there is no endpoint to call.
        endpoint = None if botocore_stubber.enabled else f"http://127.0.0.1:{moto_server_port()}"
        return cast(Any, boto3).client(
            service,
            region_name=region,
            endpoint_url=endpoint,
            config=Config(
                parameter_validation=False,
                retries={"total_max_attempts": 1},
                connect_timeout=60,
                read_timeout=1000,  # above the 900 s that a Lambda function may take
                max_pool_connections=64,
            ),
            **_credentials(region, role_arn),
        )

    def client_for(region: str, service: str, state_credentials: Any = None) -> Any:
        with making:
            return make(service, region, getattr(state_credentials, "role_arn", None))

    original = boto_client.boto_client_for
    for module in list(sys.modules.values()):
        if getattr(module, "boto_client_for", None) is original:
            replace(module, "boto_client_for", client_for)


def _credentials(region: str, role_arn: str | None) -> dict[str, str]:
    if role_arn is None:
        return {"aws_access_key_id": "ak", "aws_secret_access_key": "sk"}
    session = sts_backends[ACCOUNT_ID]["aws"].assume_role(
        region_name=region,
        role_session_name="StepFunctions",
        role_arn=role_arn,
        policy=None,
        duration=43_200,
        external_id=None,
    )
    return {
        "aws_access_key_id": session.access_key_id,
        "aws_secret_access_key": session.secret_access_key,
        "aws_session_token": session.session_token,
    }


@correction
def parameters_and_results_have_the_services_shape() -> None:
    """AWS takes a task's arguments in PascalCase and answers in PascalCase, with times as text, whatever the service's
    own API does; moto hands both through, so nested executions and EKS calls fail, and a time in an output makes
    DescribeExecution answer 500."""

    def operation(self: Any, service: str | None, action: str | None) -> Any:
        client = boto_client.boto_client_for(region="us-east-1", service=self._get_boto_service_name(service))
        name = client.meta.method_to_api_mapping[self._get_boto_service_action(action)]
        return client.meta.service_model.operation_model(name)

    def normalise_parameters(
        self: Any, parameters: Any, boto_service_name: str | None = None, service_action_name: str | None = None
    ) -> None:
        shape = operation(self, boto_service_name, service_action_name).input_shape
        if shape is not None:
            self._to_boto_request(parameters, shape)

    def normalise_response(
        self: Any, response: Any, boto_service_name: str | None = None, service_action_name: str | None = None
    ) -> None:
        shape = operation(self, boto_service_name, service_action_name).output_shape
        if shape is not None:
            self._from_boto_response(response, shape)
        _times_as_text(response)

    replace(StateTaskService, "_normalise_parameters", normalise_parameters)
    replace(StateTaskService, "_normalise_response", normalise_response)
    StateTaskService._SERVICE_NAME_SFN_TO_BOTO_OVERRIDES.update(_BOTO_NAMES)


def _times_as_text(value: Any) -> None:
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in list(members):
        if isinstance(member, datetime):
            value[key] = aws_timestamp(member)
        else:
            _times_as_text(member)


@correction
def sdk_errors_are_named_as_aws_names_them() -> None:
    """AWS names errors of aws-sdk integrations `Eks.ResourceInUseException`; moto `eks.ResourceInUseException`."""

    def normalise(original: Any, service_name: str) -> Any:
        return _ERROR_NAMES.get(service_name.lower()) or original(service_name)

    around(StateTaskServiceAwsSdk, "_normalise_service_error_name", normalise)


@correction
def nested_executions_are_watched_and_stopped() -> None:
    """AWS stops the child of a startExecution.sync task when the task ends before it (stopped, timed out, another
    iteration of the Map failed); moto lets it run. moto also asks for the child's state by HTTP twice a second, here it
    is looked at in the process.

    The result and the Cause of a failure are what DescribeExecution answers, in PascalCase, times in milliseconds;
    `.sync:2` has Input and Output of a success as JSON.
    """

    def resolver(parsed: bool) -> Callable[..., Any]:
        def build(self: Any, env: Any, resource_runtime_part: Any, **_: Any) -> Any:
            return _Child(self, env, resource_runtime_part, env.stack.pop()["ExecutionArn"], parsed)

        return build

    def eval_sync(original: Any, self: Any, *, sync_resolver: Any, callback_endpoint: Any, **kwargs: Any) -> Any:
        # Nobody has the token of such a task; moto would keep a thread waiting for it.
        outcome = original(self, sync_resolver=sync_resolver, callback_endpoint=None, **kwargs)
        if outcome is None and isinstance(sync_resolver, _Child):
            sync_resolver.stop()
        return outcome

    replace(StateTaskServiceSfn, "_build_sync_resolver", resolver(parsed=False))
    replace(StateTaskServiceSfn, "_build_sync2_resolver", resolver(parsed=True))
    around(StateTaskServiceCallback, "_eval_sync", eval_sync)


class _Child:
    """A nested execution that a task waits for."""

    def __init__(self, task: Any, env: Any, runtime: Any, execution_arn: str, parsed: bool) -> None:
        self._task = task
        self._env = env
        self._backend = stepfunctions_parser_backends[runtime.account][runtime.region]
        self._execution = self._backend.describe_execution(execution_arn)
        self._parsed = parsed

    def __call__(self) -> dict[str, Any] | None:
        """The child's description once it has succeeded, None while it runs; raises States.TaskFailed otherwise."""
        status = self._execution.exec_status
        if status == ExecutionStatus.RUNNING:
            return None
        if status == ExecutionStatus.SUCCEEDED:
            return self._describe(parsed=self._parsed)
        name = StatesErrorName(typ=StatesErrorNameType.StatesTaskFailed)
        details = TaskFailedEventDetails(
            resource=self._task._get_sfn_resource(),
            resourceType=self._task._get_sfn_resource_type(),
            error=name.error_name,
            cause=to_json_str(self._describe(parsed=False), separators=(",", ":")),
        )
        raise FailureEventException(
            FailureEvent(
                env=self._env,
                error_name=name,
                event_type=HistoryEventType.TaskFailed,
                event_details=EventDetails(taskFailedEventDetails=details),
            )
        )

    def stop(self) -> None:
        """Aborts the child, if it still runs."""
        self._execution.stop(stop_date=None, error=None, cause=None)

    def _describe(self, *, parsed: bool) -> dict[str, Any]:
        execution = self._execution
        described = {
            "ExecutionArn": execution.exec_arn,
            "Input": execution.input_data if parsed else execution.execution_input,
            "InputDetails": {"Included": True},
            "Name": execution.name,
            "StartDate": _milliseconds(execution.start_date),
            "StateMachineArn": execution.state_machine_arn,
            "Status": str(ExecutionStatus(execution.exec_status).value),
            "StopDate": _milliseconds(execution.stop_date),
        }
        if execution.exec_status == ExecutionStatus.SUCCEEDED:
            output = execution.output
            described["Output"] = output if parsed else to_json_str(output, separators=(",", ":"))
            described["OutputDetails"] = {"Included": True}
        told = {"Error": execution.error, "Cause": execution.cause}
        return described | {field: value for field, value in told.items() if value is not None}


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


@correction
def used_up_task_tokens_are_refused() -> None:
    """AWS answers TaskTimedOut to a token whose task was answered already, or has ended; moto accepts it silently."""

    def interrupt_all(original: Any, self: Any) -> None:
        self.report(CallbackConsumerTimeout())
        original(self)

    around(CallbackEndpoint, "interrupt_all", interrupt_all)
