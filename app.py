"""The CDK app: one stack per cluster of the settings file that the context key `eks-rolling` of cdk.json names."""

import sys

import aws_cdk as cdk

from eks_rolling.errors import BadRequest
from stacks.roll_stack import add_clusters

app = cdk.App()
try:
    add_clusters(app, app.node.try_get_context("eks-rolling"))
except BadRequest as error:
    sys.exit(str(error))
app.synth()
