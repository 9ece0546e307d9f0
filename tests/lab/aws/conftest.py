"""The AWS server that these tests share."""

from tests.aws_lab import assembly, aws, deployed

__all__ = ["assembly", "aws", "deployed"]
