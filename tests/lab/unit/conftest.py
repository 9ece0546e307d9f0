"""These see no network either."""

from tests.unit.conftest import _no_sockets

__all__ = ["_no_sockets"]
