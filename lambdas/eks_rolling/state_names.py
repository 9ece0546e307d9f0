"""What the states of the workflow are called: the state machines, the report, the command and the lab read it here.

Whoever renames one renames it everywhere. A test compares these names with the synthesized definitions.
"""

# The roll, in its order.

RECEIVE_CHANGE = "Wait for the change to settle"
CHECK_PERMISSIONS = "Check the permissions"
PLAN = "Plan the roll"
APPROVAL = "Wait for approval"
TAKE_LOCK = "Take the lock"
REHEARSE = "Rehearse the restore"
HOOKS_BEFORE_ROLL = "Ask the hooks before the roll"
PAUSE = "Pause what interferes"
TAINT = "Taint every outdated node"
FINISH_DEAD_MIGRATIONS = "Finish Redis migrations of a dead roll"
REPLACE_UNJOINED = "Replace what never joined"
SELECT_WAVE = "Pick the next nodes"
ANY_LEFT = "Is any node left?"
REPLACE_NODES = "Replace nodes"
REPLACE_NODE = "Replace node"
GATE = "Open the gate to the next wave"
PUT_BACK_VERSION = "Put the former version back"
FINISH_MIGRATIONS = "Finish Redis migrations that were begun"
RESTORE = "Restore"
HOOKS_AFTER_ROLL = "Ask the hooks after the roll"
FIND_ORPHANS = "Look for orphans"
START_ROLLBACK = "Start the rollback"
REPORT = "Report"

# A node, in its order. Between INSPECT_REDIS and LEAVE_LOAD_BALANCERS come the states of a Redis migration.

HOOKS_BEFORE_NODE = "Ask the hooks before the node"
LAUNCH = "Launch the replacement"
AWAIT_READY = "Wait for the replacement"
CLOSE_NODE = "Close the old node to new pods"
INSPECT_REDIS = "Look at the Redis pods"
LEAVE_LOAD_BALANCERS = "Leave the load balancers"
EVICT = "Evict pods"
AWAIT_LOAD_BALANCERS = "Wait for the last connections"
AWAIT_VOLUMES = "Wait for volumes to detach"
TERMINATE = "Terminate the instance"
HOOKS_AFTER_NODE = "Ask the hooks after the node"
RECORD = "Record what was done"

# A step is three states: the task, which has the step's name, the question whether it is done, and the wait.


def question(step: str) -> str:
    """The state that asks whether the step is done."""
    return f"{step}: done?"


def wait(step: str) -> str:
    """The state in which the step waits until it looks again."""
    return f"{step}: wait"


def step_of(state: str) -> str:
    """The step that a state belongs to."""
    return state.partition(":")[0]
