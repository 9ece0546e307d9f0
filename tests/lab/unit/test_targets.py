"""The book of targets, with a clock of the test's own."""

from lab.aws.targets import NOT_REGISTERED, State, Targets

GROUP = "arn:group"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def states(targets: Targets) -> dict[str, State]:
    return {target.id: target.state for target in targets.of(GROUP)}


def test_a_new_target_is_initial_until_a_check_reports() -> None:
    targets = Targets(Clock())
    targets.register(GROUP, "i-1", 80)
    assert states(targets) == {"i-1": State.INITIAL}
    targets.report(GROUP, "i-1", 80, healthy=True)
    assert states(targets) == {"i-1": State.HEALTHY}
    targets.register(GROUP, "i-1", 80)
    assert states(targets) == {"i-1": State.HEALTHY}


def test_a_draining_target_stays_so_until_its_delay_is_over() -> None:
    clock = Clock()
    targets = Targets(clock)
    targets.register(GROUP, "i-1", 80)
    targets.deregister(GROUP, "i-1", None, delay=5)
    assert targets.drained_at("i-1") == 1005
    targets.report(GROUP, "i-1", 80, healthy=True)
    clock.now = 1003
    targets.deregister(GROUP, "i-1", None, delay=5)
    assert targets.drained_at("i-1") == 1005
    assert states(targets) == {"i-1": State.DRAINING}
    clock.now = 1005.1
    assert states(targets) == {}
    assert targets.health(GROUP, "i-1", 80) == NOT_REGISTERED
    assert targets.drained_at("i-1") == clock.now


def test_a_draining_target_that_is_registered_again_starts_over() -> None:
    targets = Targets(Clock())
    targets.register(GROUP, "i-1", 80)
    targets.deregister(GROUP, "i-1", None, delay=5)
    targets.register(GROUP, "i-1", 80)
    assert states(targets) == {"i-1": State.INITIAL}


def test_ports_are_targets_of_their_own() -> None:
    targets = Targets(Clock())
    targets.register(GROUP, "i-1", 80)
    targets.register(GROUP, "i-1", 81)
    targets.deregister(GROUP, "i-1", 81, delay=5)
    assert [(target.port, target.state) for target in targets.of(GROUP)] == [
        (80, State.INITIAL),
        (81, State.DRAINING),
    ]


def test_an_ended_instance_is_forgotten_everywhere() -> None:
    targets = Targets(Clock())
    targets.register(GROUP, "i-1", 80)
    targets.register("arn:other", "i-1", 80)
    targets.forget("i-1")
    assert targets.of(GROUP) == targets.of("arn:other") == []


def test_reports_on_strangers_are_ignored() -> None:
    targets = Targets(Clock())
    targets.report(GROUP, "i-1", 80, healthy=True)
    assert targets.of(GROUP) == []
