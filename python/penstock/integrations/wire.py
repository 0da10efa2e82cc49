"""How a request travels: what each library does in its own way, so that one body of code governs all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock._core import Acquire, Permit, Sent
    from penstock.integrations.exchange import Outcome
    from penstock.integrations.streams import Meter

#: Pairs of a name and its value.
Headers = list[tuple[bytes, bytes]]


class Wire(Protocol):
    """How one library sends requests and reads answers; whether calls wait in threads or in tasks.

    Methods that are coroutines never suspend where calls wait in threads: `run` finishes them in one go.
    """

    def sent(self, request: Any) -> Sent:
        """What is read of a request before it is sent."""

    async def body(self, request: Any) -> bytes:
        """The body of a request, which can still be sent."""

    def form(self, request: Any) -> bytes:
        """The model that a form with files is for, as JSON has it; b"" if it names none."""

    def replayable(self, request: Any) -> bool:
        """Whether a request can be sent again."""

    def with_body(self, request: Any, body: bytes) -> Any:
        """The same request with another body, that asks for an answer that is not compressed."""

    async def send(self, request: Any) -> Any:
        """Send it; give the answer, whose body has not been read."""

    def told(self, response: Any) -> tuple[int, Headers]:
        """The status and the headers of an answer."""

    async def drain(self, response: Any) -> bytes:
        """The body of an answer as it came, read to its end; the answer is closed then."""

    def decoded(self, headers: Headers, raw: bytes) -> bytes:
        """A body without its compression; as it is if that is not known."""

    def decoder(self, headers: Headers) -> Callable[[bytes], bytes] | None:
        """What takes the compression off the next bytes of a body; None if that is not known."""

    def answer(self, status: int, headers: Headers, raw: bytes, response: Any) -> Any:
        """An answer of this content, like ``response`` otherwise, which may be None."""

    def whole(self, response: Any, raw: bytes) -> Any:
        """The answer whose body was drained, with that body."""

    async def opened(self, response: Any, meter: Meter) -> bytes:
        """Let the answer pass ``meter`` as it is read, and give what of it comes first; b"" if nothing does."""

    async def closed(self, response: Any) -> None:
        """Close an answer that nobody is given."""

    def strip(self, response: Any) -> None:
        """Take back what an answer says of its compression."""

    def error(self, kind: type[Exception], text: str, request: Any) -> Exception:
        """The library's error of this kind once more."""

    def status_error(self, outcome: Outcome, request: Any) -> Exception:
        """The library's error for an answer."""

    def crowded(self) -> bool:
        """Whether other calls are ready to come this far, which may have been started together with this one."""

    async def turn(self) -> None:
        """Let them, before any of them has its permit."""

    async def wait(self, acquire: Acquire) -> Permit:
        """Wait for a permit."""

    async def pause(self, seconds: float) -> None:
        """Wait between two attempts."""


def run(exchange: Any) -> Any:
    """The result of a coroutine that does not suspend: of calls that wait in threads."""
    try:
        exchange.send(None)
    except StopIteration as stop:
        return stop.value
    exchange.close()
    raise RuntimeError("a call of a thread was to wait in an event loop")
