"""Writes down that it was called."""

import json
import os
from typing import Any

import boto3


def handler(event: dict[str, Any], context: Any) -> None:
    """Puts the event into the bucket, under the request's id."""
    body = json.dumps(event).encode()
    boto3.client("s3").put_object(Bucket=os.environ["BUCKET"], Key=f"restored/{context.aws_request_id}", Body=body)
