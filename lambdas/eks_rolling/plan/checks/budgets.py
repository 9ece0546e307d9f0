"""Findings about disruption budgets."""

from collections.abc import Iterable, Iterator

from eks_rolling.documents.finding import Finding, blocks, holds
from eks_rolling.observed.kubernetes import Budget, Pod, Strategy, Workload
from eks_rolling.plan.snapshot import ClusterSnapshot


def budget_findings(view: ClusterSnapshot, pods: Iterable[Pod]) -> Iterator[Finding]:
    """About the budgets of pods that will be evicted, each once."""
    seen: set[tuple[str, ...]] = set()
    for pod in pods:
        budgets = view.budgets_of(pod)
        key = tuple(str(b) for b in budgets)
        if not budgets or key in seen:
            continue
        seen.add(key)
        if len(budgets) > 1:
            yield blocks(
                "two-budgets",
                f"pod {pod}",
                f"budgets {' and '.join(key)} both cover it, so every eviction fails",
                "narrow the selector of one of them",
            )
        else:
            workload = view.workload(pod.owner)
            if not view.restarts(workload):
                yield from _one_budget(budgets[0], workload)


def _one_budget(budget: Budget, workload: Workload | None) -> Iterator[Finding]:
    if budget.fault:
        yield holds(
            "budget-not-counted",
            f"budget {budget}",
            f"it {budget.why_none}; it allows no disruption meanwhile",
            "narrow its selector to pods of one Deployment, StatefulSet or ReplicaSet; the roll waits for that",
        )
    elif budget.can_never_allow:
        rule = (
            f"maxUnavailable {budget.max_unavailable}"
            if budget.max_unavailable
            else f"minAvailable {budget.min_available}"
        )
        yield blocks(
            "budget-never-allows",
            f"budget {budget}",
            f"{rule} with {budget.expected} pods allows no disruption even when all are healthy",
            _let_it_restart(workload)
            if workload
            else f"have its operator move it: a hook before_node switches over, or cordons the node for operators "
            f"that act on that; then accept budget-never-allows:budget {budget}, and the pod is asked for all the same",
        )
    elif budget.allowed == 0:
        yield holds(
            "budget-exhausted",
            f"budget {budget}",
            f"it allows no disruption now: {budget.why_none}",
            "bring the missing pods back; the roll waits for them",
        )


def _let_it_restart(workload: Workload) -> str:
    if workload.strategy is Strategy.RESTART:
        return "relax it, add a replica, or let it be restarted: apply deploy/restart-rbac.yaml in its namespace"
    return "relax it, add a replica, or annotate the Deployment eks-rolling.io/strategy: restart"
