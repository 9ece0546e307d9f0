"""The settings that something is planned with here: the deployed ones, or those of a settings file."""

from pathlib import Path
from typing import TYPE_CHECKING

from eks_rolling_cli.cli_context import say
from eks_rolling_cli.exits import CommandError, Exit
from eks_rolling_cli.target import Target

if TYPE_CHECKING:
    from eks_rolling.settings import Settings

USUAL_FILE = Path("eks-rolling.yaml")
"""Read in the folder where the command is typed while nothing is deployed, for a plan is wanted before."""


def settings_of(target: Target, file: Path | None = None) -> "tuple[Settings, bool]":
    """The settings, and whether anything is deployed; says where they are from if they are not the deployed ones.

    They are those of `file`, else the deployed ones; before anything is deployed those of the usual file where it
    describes the cluster, else the defaults. Raises CommandError, and BadRequest naming what is wrong in the file.
    """
    from eks_rolling.errors import RollError

    deployed, why = True, ""
    try:
        target.machine("roll")
    except CommandError as error:
        if error.code is not Exit.NOT_FOUND:
            raise
        deployed = False
    except RollError as error:
        deployed, why = False, f"what is deployed cannot be seen. {error}"
    if file is not None:
        return _in_file(target, file), deployed
    if deployed:
        try:
            return target.settings, True
        except RollError as error:
            why = f"the deployed ones cannot be read. {error}"
    return _not_deployed_ones(target, why), deployed


def _not_deployed_ones(target: Target, why: str) -> "Settings":
    from eks_rolling.settings import Settings

    if not why:
        why = "nothing is deployed."
        if USUAL_FILE.exists():
            described = _clusters(USUAL_FILE).get(target.cluster)
            if described is not None:
                say(f"The settings are those of {USUAL_FILE}, since nothing is deployed.")
                return described
            why = f"nothing is deployed, and {USUAL_FILE} does not describe {target.cluster}."
    say(f"The settings are the defaults, since {why}")
    return Settings(cluster=target.cluster)


def _in_file(target: Target, file: Path) -> "Settings":
    clusters = _clusters(file)
    if target.cluster not in clusters:
        raise CommandError(
            f"{file} does not describe {target.cluster}; it describes {', '.join(sorted(clusters))}.", Exit.USAGE
        )
    return clusters[target.cluster]


def _clusters(file: Path) -> "dict[str, Settings]":
    """The settings of every cluster that the file describes, by name. Raises BadRequest naming every problem."""
    from eks_rolling_config.file import read

    return {cluster.cluster: cluster.settings for cluster in read(file)}
