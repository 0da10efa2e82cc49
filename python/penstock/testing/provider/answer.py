"""What the provider answers: as it was told, or else something valid for what was asked.

A token is four characters, so that who sets the text knows its tokens.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from .schema import example
from .tokens import CHARACTERS_PER_TOKEN, estimate, filler

if TYPE_CHECKING:
    from .prompt import Prompt, Tool

__all__ = [
    "ANSWER_HEADER",
    "ANSWER_TOKENS_HEADER",
    "CALL_HEADER",
    "MOST_TOKENS",
    "Answer",
    "Script",
    "ToolCall",
    "decide",
    "pieces",
]

ANSWER_HEADER = "x-fake-answer"
"""A request header with the text of the answer; what headers cannot hold is percent-encoded."""
CALL_HEADER = "x-fake-tool-call"
"""A request header that has a tool called: its name, and arguments as JSON after a space (or else made up)."""
ANSWER_TOKENS_HEADER = "x-fake-answer-tokens"
"""A request header with which a client asks for an answer of so many tokens."""

DEFAULT_ANSWER_TOKENS = 16
MOST_TOKENS = 1_000_000  # in an answer: bounds what one request can make the provider write


@dataclass(frozen=True)
class ToolCall:
    """One call of a tool, as the model asks for it."""

    name: str
    arguments: Mapping[str, Any]

    @property
    def json(self) -> str:
        """The arguments as JSON."""
        return json.dumps(self.arguments, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True)
class Answer:
    """A text, or calls of tools."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    cut: bool = False
    """Whether the text is shorter than it would be without ``max_tokens``."""

    @property
    def tokens(self) -> int:
        """Tokens of all that is in it, at least 1."""
        if not self.tool_calls:
            return estimate(len(self.text))
        # A text beside calls is short; each call has its name and its arguments.
        calls = sum(estimate(len(call.name) + len(call.json)) for call in self.tool_calls)
        return calls + (estimate(len(self.text)) if self.text else 0)


Scripted = str | int | Mapping[str, Any] | ToolCall | Sequence[ToolCall] | Answer | None
Script = Callable[["Prompt"], Scripted]
"""Decides on answers: a text, so many tokens of any text, an object (as JSON), one or more tool calls, a whole
``Answer``, or None for what the provider would have answered anyhow."""


class BadWish(ValueError):
    """A request header of ours that makes no sense."""


def decide(prompt: Prompt, *, script: Script | None = None, answer_tokens: int | None = None) -> Answer:
    """Choose the answer: what the request's headers say, or the script, or what was asked for.

    Without either, a tool is called once for each message of the user, if tools are offered, and as the request says
    if it insists; a schema is answered with JSON that follows it; all else with a text of ``answer_tokens``, or as many
    as the request allows, or 16. Raises ``BadWish`` for a header that makes no sense.
    """
    told = _told(prompt, script)
    if told is not None:
        return _limited(told, prompt.max_tokens)
    wish = _wish(prompt)
    if wish is None:
        tool = _tool(prompt)
        if tool is not None:
            return Answer(tool_calls=(ToolCall(tool.name, _arguments(tool)),))
        if prompt.schema is not None:
            return Answer(json.dumps(example(prompt.schema), separators=(",", ":"), ensure_ascii=False))
        if prompt.json:
            return Answer("{}")
    limit = prompt.max_tokens
    tokens = wish or answer_tokens or limit or DEFAULT_ANSWER_TOKENS
    return Answer(filler(0, tokens if limit is None else min(tokens, limit)), cut=limit is not None and tokens > limit)


def _told(prompt: Prompt, script: Script | None) -> Answer | None:
    call = prompt.headers.get(CALL_HEADER)
    if call is not None:
        return Answer(tool_calls=(_header_call(call, prompt),))
    text = prompt.headers.get(ANSWER_HEADER)
    if text is not None:
        return Answer(unquote(text))
    scripted = None if script is None else script(prompt)
    if scripted is None or isinstance(scripted, Answer):
        return scripted
    if isinstance(scripted, bool):
        raise TypeError(f"the script of a FakeProvider must not answer with {scripted!r}")
    if isinstance(scripted, str):
        return Answer(scripted)
    if isinstance(scripted, int):
        return Answer(filler(0, min(max(1, scripted), MOST_TOKENS)))
    if isinstance(scripted, ToolCall):
        return Answer(tool_calls=(scripted,))
    if isinstance(scripted, Mapping):
        return Answer(json.dumps(scripted, separators=(",", ":"), ensure_ascii=False))
    if isinstance(scripted, Sequence) and all(isinstance(call, ToolCall) for call in scripted):
        return Answer(tool_calls=tuple(call for call in scripted if isinstance(call, ToolCall)))
    raise TypeError(f"the script of a FakeProvider must not answer with {scripted!r}")


def _header_call(text: str, prompt: Prompt) -> ToolCall:
    name, _, rest = text.strip().partition(" ")
    if rest:
        try:
            arguments = json.loads(unquote(rest))
        except ValueError:
            arguments = None
        if not isinstance(arguments, dict):
            raise BadWish(f"The header {CALL_HEADER} must be a name and a JSON object, not {text}.")
        return ToolCall(name, arguments)
    tool = next((tool for tool in prompt.tools if tool.name == name), None)
    return ToolCall(name, {} if tool is None else _arguments(tool))


def _limited(answer: Answer, limit: int | None) -> Answer:
    most = None if limit is None else limit * CHARACTERS_PER_TOKEN
    if most is None or answer.tool_calls or len(answer.text) <= most:
        return answer
    return Answer(answer.text[:most], cut=True)


def _wish(prompt: Prompt) -> int | None:
    """How long an answer the request's header asks for."""
    text = prompt.headers.get(ANSWER_TOKENS_HEADER)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 8 and 0 < int(text) <= MOST_TOKENS):
        raise BadWish(
            f"The header {ANSWER_TOKENS_HEADER} must be a number of tokens from 1 to {MOST_TOKENS}, not {text}."
        )
    return int(text)


def _tool(prompt: Prompt) -> Tool | None:
    """Find the tool to call: each once, in the order in which they are offered."""
    if not prompt.tools or prompt.tool_choice == "none":
        return None
    if prompt.tool_choice == "auto":
        return None if prompt.called else prompt.tools[0]
    fresh = next((tool for tool in prompt.tools if tool.name not in prompt.called), prompt.tools[-1])
    return next((tool for tool in prompt.tools if tool.name == prompt.tool_choice), fresh)


def _arguments(tool: Tool) -> Mapping[str, Any]:
    made = example(tool.schema)
    return made if isinstance(made, Mapping) else {}


def pieces(text: str, most: int) -> list[str]:
    """Cut a text into at most ``most`` pieces of nearly the same size, whole tokens each; one piece if it is empty."""
    tokens = max(1, -(-len(text) // CHARACTERS_PER_TOKEN))
    count = min(most, tokens)
    bounds = [tokens * piece // count * CHARACTERS_PER_TOKEN for piece in range(count + 1)]
    return [text[start:stop] for start, stop in itertools.pairwise(bounds)]
