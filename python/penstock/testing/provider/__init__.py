"""A strict provider on loopback, for tests and for judging clients: ``FakeProvider``.

Needs nothing but aiohttp (extra ``testing``). From a shell: ``python -m penstock.testing.provider --help``.
"""

import importlib.util

if importlib.util.find_spec("aiohttp") is None:
    message = "FakeProvider needs aiohttp, which comes with the extra: pip install 'penstock[testing]'"
    raise ModuleNotFoundError(message, name="aiohttp")

from .answer import Answer, ToolCall
from .dialect import DialectName
from .fault import Fault, FaultKind
from .log import Arrival, Summary
from .openai import request_cost
from .policy import Enforcement
from .prompt import Prompt, Tool
from .server import FakeProvider

__all__ = [
    "Answer",
    "Arrival",
    "DialectName",
    "Enforcement",
    "FakeProvider",
    "Fault",
    "FaultKind",
    "Prompt",
    "Summary",
    "Tool",
    "ToolCall",
    "request_cost",
]
