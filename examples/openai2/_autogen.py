"""The model client of the examples for AutoGen, without what it logs beside raising it."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from _provider import MODEL
from autogen_ext.models.openai import OpenAIChatCompletionClient

for name in ("autogen_core", "autogen_core.events", "autogen_agentchat"):
    logging.getLogger(name).setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", message="Resolved model mismatch")  # the provider on this machine names no dates


def client(where: dict[str, Any]) -> OpenAIChatCompletionClient:
    """Make the client."""
    return OpenAIChatCompletionClient(model=MODEL, **where)
