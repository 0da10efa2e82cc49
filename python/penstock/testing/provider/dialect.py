"""What differs between providers: paths, what a request costs, and how answers, headers and errors look.

A dialect is sans-I/O: it turns a request's bytes into a ``Call`` and a ``Call`` into an answer's bytes. The server does
the rest (sockets, quotas, time, the log), so another provider is one more file beside the others.
"""

from __future__ import annotations

import abc
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .answer import BadWish, Script, decide

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from .answer import Answer
    from .fault import Fault
    from .prompt import JSONObject, Prompt
    from .quota import Level, Refusal

__all__ = ["Call", "Dialect", "DialectName", "Free", "Incoming", "Problem", "Settings", "encode", "event"]

DialectName = Literal["openai", "azure", "anthropic", "gemini", "bedrock", "cohere"]

JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"


class Incoming(NamedTuple):
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Found without regard to case."""
    body: bytes
    query: Mapping[str, str] = {}


@dataclass(eq=False)
class Problem(Exception):
    """A request that is answered with an error: raised while reading it, or made from a refusal."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    counts: bool = True
    """Whether it uses the request quota where failed requests do: not if the caller or the path is unknown."""
    model: str | None = None
    """The model it was meant for, as far as that is known."""

    def __str__(self) -> str:
        return self.body.decode(errors="replace")


class Call(abc.ABC):
    """A well-formed request, and how to answer it."""

    model: str
    cost: Mapping[str, int]
    """By dimension, as the provider counts at admission; nothing at all for what is free."""
    tokens_in: int = 0
    """Prompt tokens of the usage."""
    tokens_out: int = 0
    """Completion tokens of the usage. Counted in ``output_tokens`` as they are made, not at admission."""

    @property
    def used(self) -> int:
        """Tokens that it comes to in the end, where what was reserved is settled."""
        return self.tokens_in + self.tokens_out

    stream: bool = False
    answer_type: str = JSON
    stream_type: str = EVENTS

    @abc.abstractmethod
    def answer(self, number: int, created: int) -> bytes:
        """Write the body of the ``number``-th answer, made at ``created`` (seconds since 1970)."""

    def events(self, number: int, created: int, chunks: int) -> list[bytes]:  # noqa: ARG002
        """Write the same as a stream: what to send at each of at most ``chunks`` moments, at least one."""
        return [self.answer(number, created)]


class Free(Call):
    """A request that costs nothing: lists of models, files, batches, counts of tokens."""

    def __init__(self, answer: object, model: str = "") -> None:
        self.model = model
        self.cost = {}
        self._answer = answer

    def answer(self, number: int, created: int) -> bytes:  # noqa: ARG002, D102
        return encode(self._answer)


@dataclass(frozen=True)
class Settings:
    """What all dialects of a provider are told."""

    keys: Collection[str] | None = None
    models: Collection[str] | None = None
    answer_tokens: int | None = None
    script: Script | None = None


class Dialect(abc.ABC):
    """One provider's way of speaking HTTP."""

    name: DialectName
    base_path: str = ""
    """What the client's base URL ends in."""
    settles: bool = False
    """Whether what was reserved is replaced by what was used, when a request is done."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = Settings() if settings is None else settings

    @abc.abstractmethod
    def claims(self, path: str, headers: Mapping[str, str]) -> bool:
        """Whether a request to this path is in this dialect."""

    @abc.abstractmethod
    def key(self, request: Incoming) -> str | None:
        """Find the API key that a request came with."""

    @abc.abstractmethod
    def read(self, request: Incoming) -> Call:
        """Understand a request, or raise the ``Problem`` to answer with."""

    @abc.abstractmethod
    def headers(self, number: int, milliseconds: int) -> dict[str, str]:
        """Write the headers of every answer: its id, and how long it took."""

    @abc.abstractmethod
    def quota_headers(self, levels: Mapping[str, Level], now: float) -> dict[str, str]:
        """Write the headers that tell a quota's state at ``now`` (seconds since 1970)."""

    @abc.abstractmethod
    def refuse(self, call: Call, refusal: Refusal) -> Problem:
        """Write the answer to a call that the quota has no room for."""

    @abc.abstractmethod
    def fault(self, fault: Fault, model: str) -> Problem:
        """Write the answer of a fault that answers in place of the provider."""

    @abc.abstractmethod
    def overloaded_event(self, call: Call) -> bytes:
        """Write the end of the stream of a call that began well and then fails for overload."""

    @abc.abstractmethod
    def bad_wish(self, message: str, model: str) -> Problem:
        """Write the answer to one of our own request headers that makes no sense."""

    def decide(self, prompt: Prompt) -> Answer:
        """Choose the answer, or raise the ``Problem`` of a header that makes no sense."""
        try:
            return decide(prompt, script=self.settings.script, answer_tokens=self.settings.answer_tokens)
        except BadWish as wrong:
            raise self.bad_wish(str(wrong), prompt.model) from None


def encode(value: object) -> bytes:
    """Write JSON as it goes over the wire."""
    return json.dumps(value, separators=(",", ":")).encode()


def event(value: object, name: str | None = None) -> bytes:
    """Write one server-sent event, with a name if there is one."""
    head = b"" if name is None else f"event: {name}\n".encode()
    return head + b"data: " + encode(value) + b"\n\n"


def json_object(body: bytes) -> JSONObject | None:
    """Read a body that must be a JSON object; None if it is not."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return request if isinstance(request, dict) else None


def text_characters(content: Any) -> int:
    """Characters of a message's content: a string, or parts of which some have a text."""
    return len(text_of(content))


def text_of(content: Any) -> str:
    """All text of a message's content: a string, or parts of which some have a text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part if isinstance(part, str) else part.get("text") for part in content if isinstance(part, (str, dict)))
    return "".join(text for text in texts if isinstance(text, str))


def tools_characters(tools: Any) -> int:
    """Characters of a list of tools, as JSON."""
    return len(json.dumps(tools, ensure_ascii=False, separators=(",", ":"))) if tools else 0
