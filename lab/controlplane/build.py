import os
from pathlib import Path


def programs() -> Path:
    return Path(os.environ["EKS_ROLLING_CONTROL_PLANE"])
