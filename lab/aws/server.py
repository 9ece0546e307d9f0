"""The AWS server: `python -m lab.aws.server LAB`.

One process: moto's Flask applications behind `lab.aws.middleware`, with the corrections of `lab.aws.compat`, the fleet,
EventBridge and the Lambda runner. It says `ready` on standard output once it answers.
"""

import argparse
import gc
import logging
import os
import signal
import sys
import time
from pathlib import Path

from lab.paths import LabPaths, cache_directory

# Before everything that is slow to import: compiled modules are kept wherever this installation may write.
sys.dont_write_bytecode = False
sys.pycache_prefix = sys.pycache_prefix or str(cache_directory() / "bytecode")


def main(arguments: list[str] | None = None) -> None:
    """Serves until it is terminated."""
    parser = argparse.ArgumentParser(prog="lab.aws.server", description=__doc__)
    parser.add_argument("lab", type=Path, help="the lab's directory, with its spec.json")
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 (pods reach it from their own namespaces)
    parser.add_argument("--port", type=int, default=4566)
    given = parser.parse_args(arguments)
    # At once: all state is in memory, and the functions' processes end with this one.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    serve(LabPaths(given.lab.resolve()), given.host, given.port)


def serve(paths: LabPaths, host: str, port: int) -> None:
    """Builds the server of a lab and runs it in this thread."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    logging.getLogger("moto.stepfunctions").setLevel(logging.CRITICAL)  # what fails stands in the execution's history
    os.environ["MOTO_PORT"] = str(port)  # where moto's interpreter finds its own server
    os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"  # a second of every start
    os.environ["TZ"] = "UTC"  # Wait states with a timestamp are computed in local time
    time.tzset()

    # Nothing of what is imported and seeded is garbage.
    gc.disable()
    from lab.aws.cloud import build
    from lab.aws.web import make_server

    server = make_server(host, port, build(paths, port))
    gc.freeze()
    gc.enable()
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
