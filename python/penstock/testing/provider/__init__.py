"""A strict provider on loopback, for tests and for judging clients: ``FakeProvider``.

Needs nothing but aiohttp (extra ``testing``). From a shell: ``python -m penstock.testing.provider --help``.
"""

from .log import Arrival, Summary
from .openai import request_cost
from .policy import Enforcement
from .server import FakeProvider

__all__ = ["Arrival", "Enforcement", "FakeProvider", "Summary", "request_cost"]
