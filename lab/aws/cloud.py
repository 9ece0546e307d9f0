"""Puts the parts of the AWS server together."""

import time
from typing import Any

from moto.core.config import default_user_config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from lab.aws import (
    access,
    calls,
    compat,
    events,
    images,
    launch_instances,
    quotas,
    refreshes,
    scaling,
    simulation,
    targets,
)
from lab.aws.account import Account
from lab.aws.cloudtrail import Trail
from lab.aws.faults import Faults
from lab.aws.fleet import Fleet
from lab.aws.lambdas import Lambdas
from lab.aws.middleware import Middleware
from lab.aws.policies import Policies
from lab.aws.seed import seed
from lab.aws.tokens import Authenticator
from lab.paths import LabPaths
from lab.spec import LabSpec


def build(paths: LabPaths, port: int) -> Middleware:
    """The server's application for a lab, seeded by its spec. Changes moto for the whole process: once is enough."""
    spec = LabSpec.load(paths.spec)
    account = Account(spec.region)
    default_user_config["stepfunctions"] = {"execute_state_machine": True}
    default_user_config["iam"] = {"load_aws_managed_policies": True}
    compat.apply()

    faults = Faults(spec.faults)
    registered = targets.Targets(time.time, lambda: faults.spec.registration_seconds)
    targets.install(registered)
    delays = spec.delays
    fleet = Fleet(
        account,
        registered,
        boot=delays.boot,
        terminate=delays.terminate,
        shutdown_grace=spec.shutdown_grace,
        clock=time.time,
        faults=faults,
    )
    scaling.install(fleet)
    launch_instances.install(fleet)
    refreshes.install()
    images.install(account)
    quotas.install(spec.vcpu_quota)
    entries = access.AccessEntries()
    access.install(entries)

    log, role_of = calls.CallLog(paths.calls), calls.RoleOfKey(account)
    policies = Policies(account, lambda: faults.spec.organization_denies)
    simulation.install(policies)
    gate = calls.Gate(log, policies, role_of)
    lambdas = Lambdas(account, paths, faults, port=port)
    bus = events.EventBus(account, lambdas, faults, gate)
    events.install(bus)
    compat.executions.status_listeners.append(events.execution_listener(bus))
    calls.install(gate, fleet, faults, role_of, Trail(bus, spec.region), lambdas.freeze)

    seed(account, fleet, spec, paths.pki / "ca.crt")
    moto: Any = DomainDispatcherApplication(create_backend_app)
    return Middleware(
        moto,
        account=account,
        fleet=fleet,
        targets=registered,
        lambdas=lambdas,
        faults=faults,
        calls=log,
        gate=gate,
        authenticator=Authenticator(cluster=spec.cluster, region=spec.region, port=port, entries=entries),
    )
