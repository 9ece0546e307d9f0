"""The CDK app: one stack per cluster, described in the context key `eks-rolling` of cdk.json."""

import sys

import aws_cdk as cdk

from lambdas.errors import BadRequest
from stacks.roll_stack import add_cluster

app = cdk.App()
try:
    add_cluster(app, app.node.try_get_context("eks-rolling") or {})
except BadRequest as error:
    sys.exit(str(error))
app.synth()
