"""Faults that the tests have to find: in decisions, clients, restores, switches and the doctor's checks.

Each is one wrong line.
"""

from dataclasses import dataclass

PRODUCT = "lambdas/eks_rolling"


@dataclass(frozen=True)
class Fault:
    """`right` stands exactly once in the product's `file`; with `wrong` in its place `breaks` no longer holds."""

    name: str
    breaks: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]
    """Where it should be found, below tests/: whatever could, quickest first."""


def _fault(name: str, breaks: str, file: str, right: str, wrong: str, *tests: str) -> Fault:
    return Fault(name, breaks, f"{PRODUCT}/{file}", right, wrong, tests)


ROLL = "model/test_roll.py"
NODES = ("unit/steps", ROLL)
RESTORE = "hostile/test_restore.py"
SENTINEL = (
    "unit/test_sentinel.py",
    "unit/test_handover.py",
    "model/test_redis_roll.py",
    "contract/test_redis_faults.py",
)
SHARDS = ("unit/test_cluster.py", "model/test_cluster_roll.py", "contract/test_cluster_migration.py")

FAULTS = (
    _fault("ending pods count as gone", "N2", "steps/evict.py",
           "    if not here:\n        return _finish", "    if not movers:\n        return _finish", *NODES),
    _fault("a budget is spent twice", "N1", "steps/evict.py",
           "left.get(budget, budget.allowed) - 1", "left.get(budget, budget.allowed)", *NODES),
    _fault("pods are terminated with their node", "N2", "steps/terminate.py",
           "for p in seen.pods if not p.stays_with_node and", "for p in seen.pods if p.deleting and", *NODES),
    _fault("volumes are cut off", "N2", "steps/terminate.py",
           "    if seen.attachments and not", "    if len(seen.attachments) > 1 and not", *NODES),
    _fault("a draining target is taken for an unused one", "N2", "steps/terminate.py",
           "[t.name for t in seen.targets if t.receives_traffic]",
           '[t.name for t in seen.targets if t.state == "healthy"]', *NODES),
    _fault("another roll's node is terminated", "N4", "steps/terminate.py",
           "    if seen.node.annotations.get(NODE_ROLL) != roll:", "    if NODE_ROLL not in seen.node.annotations:",
           *NODES),
    _fault("a living roll's lock is taken over", "R4", "roll/lock.py",
           "    if lease.expired(now) and now >= steps_until(lease):", "    if lease.holder:",
           "unit/test_lock.py", ROLL),
    _fault("a step works on after the restore has begun", "R6", "roll/lock.py",
           "    if ENDED in lease.annotations:", "    if ENDED in lease.holder:", "unit/test_lock.py", ROLL),
    _fault("an original is overwritten by a later reading", "R1", "roll/arrangements.py",
           "RaisedMaximum(group.maximum if known is None or theirs else known.original, maximum)",
           "RaisedMaximum(group.maximum, maximum)", *NODES),
    _fault("what somebody scaled up meanwhile is scaled back", "R2", "steps/restore.py",
           "return Theirs(workload.desired) if workload.desired else ScaleTo", "return ScaleTo", *NODES),
    _fault("a target is terminated while it drains", "N2", "steps/restore.py",
           '    if using:\n        return "wait"\n    return AwaitOthers', "    return AwaitOthers", *NODES),
    _fault("a launch that nothing lists yet is forgotten", "R2", "steps/restore.py",
           "    if now <= asked_by + SPREADING_SECONDS:", "    if now < asked_by:", RESTORE),
    _fault("a maximum is lowered below a capacity that is not described yet", "N2", "steps/restore.py",
           "        elif not any(i.id in instances for i in group.instances):", "        else:", RESTORE),
    _fault("a restore does not wait for steps that run on", "R6", "roll/fence.py",
           "    return max(0.0, steps_over_at(ended, task) - now)", "    return 0.0",
           "unit/test_fence.py", "hostile/test_late_steps.py"),
    _fault("a replacement in use is given back", "N2", "steps/restore.py",
           "    if any(not p.stays_with_node for p in seen.pods):", "    if any(p.deleting for p in seen.pods):",
           *NODES),
    _fault("a hard taint is made soft again", "R3", "roll/arrangements.py",
           "with_roll_taint(node, SOFT_TAINT) if node.roll_taint is None else None",
           "with_roll_taint(node, SOFT_TAINT)", *NODES),
    _fault("the last healthy target leaves", "N3", "steps/leave_load_balancers.py",
           "        if not target.may_leave(floor):", "        if not target.may_leave(0):", *NODES),
    _fault("a restore takes the last healthy target away", "N3", "steps/restore.py",
           "    return coming or not target.may_leave(min(floor, max(1, target.others)))", "    return coming", *NODES),
    _fault("a dead replacement is found for ever", "R3", "steps/launch_replacement.py",
           "if state and instance.alive and instance.id not in leaving and state.tags",
           "if state and instance.id not in leaving and state.tags", *NODES),
    _fault("the role changes hands before the replica has all", "S1", "migration/handover.py",
           "        return role is Role.REPLICA and within(", "        return role is Role.REPLICA or within(",
           *SENTINEL),
    _fault("a master is closed for a replica that is behind", "S1", "migration/handover.py",
           "        if not within(EQUAL_SECONDS, lambda: _has_all(target, offset, clients), clients):",
           "        if offset < 0:", *SENTINEL),
    _fault("half of the sentinels are a majority", "S1", "redis/sentinel.py",
           "for v in views) * 2 > len(seen.watchers)", "for v in views) * 2 >= len(seen.watchers)", *SENTINEL),
    _fault("slots that nobody serves are overlooked", "C1", "redis/cluster.py",
           "        if not node.ok or node.slots_ok != SLOTS:", "        if not node.ok:", *SHARDS),
    _fault("a node with slots is forgotten", "C1", "redis/cluster.py",
           "            if dead and _still_has_slots(known.id, everyone) is None:", "            if dead:", *SHARDS),
    _fault("a stand-in may be elected before it has caught up", "C1", "redis/cluster.py",
           "step, held_back=stand_in.node.electable is True)", "step, held_back=False)", *SHARDS),
    _fault("a person is asked before the sentinels' second election", "R3", "redis/sentinel.py",
           "    return min(NO_MASTER_SECONDS + max(second, default=0.0), LONGEST_WITHOUT_MASTER_SECONDS)",
           "    return min(NO_MASTER_SECONDS, max(second, default=0.0))", *SENTINEL),
    _fault("the newest of several replacements is the spare one", "R2", "observed/marks.py",
           "        *earlier, newest = sorted(", "        newest, *earlier = sorted(",
           "unit/steps", "unit/test_orphans.py", "model/test_spares.py"),
    _fault("a replacement that stays is registered nowhere", "R2", "steps/restore.py",
           "            if target.instance == old and target.group not in has:",
           "            if target.instance == instance and target.group not in has:", RESTORE),
    _fault("a mark needs no proof", "T1", "roll/proofs.py",
           "    return _digest(node.annotations[mark]) in digests", "    return bool(digests) or bool(node.name)",
           "unit/test_proofs.py", RESTORE),
    _fault("whatever pod has the name by now is evicted", "N1", "clients/kubernetes.py",
           '"deleteOptions": {"preconditions": {"uid": pod.uid}},', '"deleteOptions": {},',
           "unit/test_boundaries.py", "contract/test_kubernetes_client.py"),
    _fault("two rolls write the lock at once", "R4", "clients/kubernetes.py",
           '            metadata["resourceVersion"] = lease.resource_version', "            metadata.update({})",
           "unit/test_boundaries.py", "contract/test_kubernetes_client.py"),
    Fault("a trail that records some of the changes is enough", "doctor", "eks_rolling_cli/doctor.py",
          "    return all(any(all(_selects(", "    return any(any(all(_selects(", ("unit/cli/test_doctor.py",)),
)  # fmt: skip
