"""Corrections to moto's Lambda."""

from typing import Any

from moto.awslambda.models import LambdaFunction

from lab.aws.compat.registry import around, correction


@correction
def a_function_says_where_it_logs() -> None:
    """AWS answers a function's LoggingConfig, its own log group where none was given; moto forgets it."""

    def made(original: Any, self: Any, account_id: str, spec: Any, *rest: Any, **more: Any) -> None:
        self.lab_logging = spec.get("LoggingConfig") or {}
        original(self, account_id, spec, *rest, **more)

    def updated(original: Any, self: Any, changes: Any) -> Any:
        self.lab_logging = changes.get("LoggingConfig") or self.lab_logging
        return original(self, changes)

    def described(original: Any, self: Any, *rest: Any, **more: Any) -> Any:
        own = {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{self.function_name}"}
        return original(self, *rest, **more) | {"LoggingConfig": own | self.lab_logging}

    around(LambdaFunction, "__init__", made)
    around(LambdaFunction, "update_configuration", updated)
    around(LambdaFunction, "get_configuration", described)
