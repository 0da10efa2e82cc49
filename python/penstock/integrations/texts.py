"""About how many tokens the messages of frameworks have, whatever their classes, for hooks that see no HTTP body."""

from __future__ import annotations

from typing import Any

from penstock._core import estimate_tokens

#: Where messages, their parts and tools keep what the provider reads.
_TEXTS = ("content", "blocks", "text", "parts", "results", "result", "arguments", "tool_calls", "schema")
#: What a chat adds for each message: its role and its frame (OpenAI's cookbook counts 3 or 4).
_FRAME = 4
#: Deeper than any message is nested.
_DEPTH = 12


def tokens_of(*things: object) -> int:
    """An estimate of the tokens in ``things``: strings, messages, tools, and collections of them."""
    return sum(_tokens(thing, _DEPTH) for thing in things)


def _tokens(thing: Any, depth: int) -> int:
    if isinstance(thing, str):
        return estimate_tokens(thing)
    if depth == 0 or thing is None or isinstance(thing, (bytes, bool, int, float)):
        return 0
    if isinstance(thing, dict):
        return sum(_tokens(name, depth - 1) + _tokens(value, depth - 1) for name, value in thing.items())
    if isinstance(thing, (list, tuple, set, frozenset)):
        return sum(_tokens(one, depth - 1) for one in thing)
    found = 0
    for name in _TEXTS:
        value = getattr(thing, name, None)
        if value is not None and not callable(value):
            found += _tokens(value, depth - 1)
            if name in ("content", "blocks") and found:
                return found + _FRAME  # `text` and `blocks` show the same once more
    return found
