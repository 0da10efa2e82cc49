"""What a call really used, read from its result.

Results are recognised by their shape, so nothing is imported: OpenAI (chat completions, responses, embeddings),
Anthropic, Google, LangChain (messages, ``LLMResult``), LlamaIndex (responses with ``raw``) and AutoGen
(``CreateResult``, ``TaskResult``), their dicts, and lists of any of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

#: Results of these types carry no usage; looking further would cost every call.
_PLAIN = frozenset({str, bytes, int, float, bool, type(None)})
#: How deep results may be nested in each other.
_DEPTH = 4
#: More tokens than this no call uses: whatever such a number is, it is not usage.
_MOST = 10**12


class Usage(NamedTuple):
    """Tokens that a call used. None where a provider does not say."""

    tokens: int
    input_tokens: int | None = None
    output_tokens: int | None = None

    def __add__(self, other: object) -> Usage:
        """The sum of two calls' usage."""
        if not isinstance(other, Usage):
            return NotImplemented
        return Usage(
            self.tokens + other.tokens,
            _sum(self.input_tokens, other.input_tokens),
            _sum(self.output_tokens, other.output_tokens),
        )

    def grown_to(self, later: Usage) -> Usage:
        """What a stream has used by now. Counts of a stream grow, and an item may leave out what an earlier one said.

        Anthropic counts the input in the first event and the output in later ones; LangChain makes the rest 0 there.
        """
        sent = _most(self.input_tokens, later.input_tokens)
        received = _most(self.output_tokens, later.output_tokens)
        return Usage(max(self.tokens, later.tokens, (sent or 0) + (received or 0)), sent, received)


def _most(one: int | None, other: int | None) -> int | None:
    return one if other is None else other if one is None else max(one, other)


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def usage_of(result: object, depth: int = _DEPTH) -> Usage | None:
    """The usage that ``result`` carries, or None if it carries none that is recognised."""
    kind = type(result)
    if kind in _PLAIN or depth == 0:
        return None
    if kind is list or kind is tuple:
        return _usage_of_all(result, depth)
    for name in ("usage", "usage_metadata", "models_usage"):
        used = _read(_get(result, name))
        if used is not None:
            return used
    for name in ("raw", "message", "response", "chat_message"):  # LlamaIndex; LangChain; OpenAI's last event; AutoGen
        inner = _get(result, name)
        if inner is not None and inner is not result:
            used = usage_of(inner, depth - 1)
            if used is not None:
                return used
    output = _get(result, "llm_output")  # LangChain's LLMResult and ChatResult
    if output is not None:
        used = _read(_get(output, "token_usage")) or _read(_get(output, "usage"))
        if used is not None:
            return used
    for name in ("messages", "generations"):  # AutoGen's TaskResult, agents' states
        items = _get(result, name)
        if type(items) is list:
            used = _usage_of_all(items, depth)
            if used is not None:
                return used
    return None


def _usage_of_all(results: Any, depth: int) -> Usage | None:
    if results and type(results[0]) in (float, int):
        return None  # an embedding: thousands of numbers, and no usage
    found = [used for used in (usage_of(result, depth - 1) for result in results) if used is not None]
    return None if not found else sum(found[1:], found[0])


def _get(thing: object, name: str) -> Any:
    try:
        if isinstance(thing, Mapping):
            return thing.get(name)
        return getattr(thing, name, None)
    except Exception:  # noqa: BLE001  a property of someone else's class may raise anything
        return None


def _count(thing: object, *names: str) -> int | None:
    for name in names:
        value = _get(thing, name)
        if type(value) is int and 0 <= value <= _MOST:
            return value
    return None


def _read(usage: object) -> Usage | None:
    """Reads a usage object: the names differ by provider, the meaning does not."""
    if usage is None or callable(usage):
        return None
    sent = _count(usage, "input_tokens", "prompt_tokens", "prompt_token_count")
    received = _count(usage, "output_tokens", "completion_tokens", "candidates_token_count")
    total = _count(usage, "total_tokens", "total_token_count")
    thoughts = _count(usage, "thoughts_token_count")  # Google counts them beside the candidates
    if received is not None and thoughts is not None:
        received += thoughts
    # Anthropic counts what it writes to its cache, and not what it reads from there; neither is in input_tokens.
    written = _count(usage, "cache_creation_input_tokens")
    if sent is not None and written is not None and total is None:
        sent += written
    if total is None:
        if sent is None and received is None:
            return None
        total = (sent or 0) + (received or 0)
    return Usage(total, sent, received)
