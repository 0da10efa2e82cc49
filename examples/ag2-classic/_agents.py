"""What the examples for AG2 0.x and AutoGen 0.2 share: configuration and the one who asks, without printing chats."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any

from _provider import MODEL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from autogen import UserProxyAgent

logging.getLogger("autogen").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", message="flaml")  # what AutoGen 0.2 imports


def config(where: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Make the `llm_config`; nothing is cached on disk, and no price is looked for."""
    return {"config_list": [{"model": MODEL, "price": [0, 0], **where, **more}], "cache_seed": None}


def user(name: str = "user") -> UserProxyAgent:
    """Make the one who asks."""
    from autogen import UserProxyAgent

    return UserProxyAgent(name, human_input_mode="NEVER", code_execution_config=False)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what chats print, whole."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
