"""Faults. Waiting is never one of them: a step that has to wait answers so.

    RollError
    ├── Transient          the workflow runs the step again, with backoff and jitter
    │   └── Conflict       the object changed between our read and our write: read it again
    └── Permanent          the workflow goes to Restore
        ├── BadRequest     the input names something unknown, or is malformed
        ├── Refused        what was asked for would break an invariant
        │   └── NotBegun   another node of the wave was not replaced, and so this one is not begun
        ├── AccessDenied   a permission is missing; the sentence names it
        ├── NotFound       something the step cannot do without is not there
        ├── LockLost       another roll holds the cluster's lock, or the roll was stopped
        ├── DeadlineExceeded  a hold lasted longer than its deadline; the sentence names what held
        │   ├── ChecksFailed  what held were alarms or checks, by which the settings judge a version
        │   ├── Interfered    what held was somebody's change of what the roll had arranged
        │   └── OldNodeHeld   what held is on the old node: pods, budgets, volumes, traffic, Redis
        └── Aborted        a person ended the roll

Class names are the workflow's error names: a rename here renames them there (`stacks/state_machine.py` takes them
from this module, and a test compares). Every message is one sentence for the operator: what is wrong, with what,
and what to do.
"""

from eks_rolling.legible import line, short

LONGEST_SENTENCE = 10_000
"""Characters. What a step raises crosses states as what it answers does."""


class RollError(Exception):
    """Any fault this application raises on purpose."""


class Transient(RollError):
    """May be gone when the step is run again."""


class Conflict(Transient):
    """A write's precondition (resourceVersion, UID) no longer held."""


class Permanent(RollError):
    """Will not go away by itself."""


class BadRequest(Permanent):
    """The request or the settings are wrong."""


class Refused(Permanent):
    """The request is understood, and following it would not be safe."""


class NotBegun(Refused):
    """A node is left as it is, because another one of its wave was not replaced."""


class AccessDenied(Permanent):
    """A permission is missing or the credentials are not accepted."""


class NotFound(Permanent):
    """An object that must exist does not."""


class LockLost(Permanent):
    """This roll may not act any more."""


class DeadlineExceeded(Permanent):
    """A step waited longer than its deadline."""


class ChecksFailed(DeadlineExceeded):
    """Alarms or checks of the settings, which judge the new version, held the gate longer than its deadline."""


class Interfered(DeadlineExceeded):
    """Somebody had changed what the roll had arranged, and nobody undid it, which says nothing about the version."""


class OldNodeHeld(DeadlineExceeded):
    """A step that empties an old node waited longer than its deadline, which says nothing about the new version."""


class Aborted(Permanent):
    """A person asked for the roll to end; what was begun with Redis is finished, and everything put back."""


NOT_APPROVED = "NotApproved"
"""How a roll ends that was refused, or not approved in time: the workflow's own error, not a step's."""


MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What reading something raises that does not look as it should. Where one object's fault must not be everybody's."""


def _names(kind: type[RollError]) -> frozenset[str]:
    return frozenset({kind.__name__}).union(*(_names(each) for each in kind.__subclasses__()))


ERROR_NAMES = _names(RollError) | {NOT_APPROVED}
"""What the workflow calls our own faults; their causes are sentences."""


def sentence(error: BaseException) -> str:
    """The error as one line for an operator."""
    text = short(line(" ".join(str(error).split())), LONGEST_SENTENCE)
    return text if isinstance(error, RollError) and text else f"{type(error).__name__}: {text}"
