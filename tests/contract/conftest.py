"""The AWS server that the account's client is tried on."""

from tests.aws_lab import assembly, aws, deployed

__all__ = ["assembly", "aws", "deployed"]
