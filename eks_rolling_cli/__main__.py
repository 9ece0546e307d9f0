"""The console script `eks-rolling`; `python -m eks_rolling_cli` is the same."""

import sys
from io import TextIOWrapper

from eks_rolling_cli.exits import Exit, missing_package


def main() -> None:
    """Runs the command. Where a package that it needs is not installed, it says what to install instead."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A terminal or a file that cannot show an arrow or somebody's name gets a question mark for it.
            stream.reconfigure(errors="replace")
    try:
        from eks_rolling_cli.app import app
    except ModuleNotFoundError as error:
        if not (sentence := missing_package(error)):
            raise
        sys.stderr.write(f"error: {sentence}\n")
        sys.exit(Exit.FAILED)
    app()


if __name__ == "__main__":
    main()
