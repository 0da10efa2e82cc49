"""How a request travels: what each library does in its own way, so that one body of code governs all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock._core import Acquire, Permit
    from penstock.integrations.exchange import Outcome
    from penstock.integrations.streams import Meter

#: Pairs of a name and its value.
Headers = list[tuple[bytes, bytes]]


class Sent:
    """What is read of a request before it is sent."""

    __slots__ = ("agent", "host", "json", "method", "path", "port", "retried", "secret")

    def __init__(self, method: str, host: str, port: int | None, path: str) -> None:
        self.method = method
        self.host = host
        self.port = port
        self.path = path
        #: The ``user-agent``, which names an SDK.
        self.agent = ""
        #: What authenticates it.
        self.secret = ""
        #: Whether the SDK says that it sends it again.
        self.retried = False
        #: Whether its body is one to read.
        self.json = True

    def see(self, name: bytes, value: bytes) -> None:
        """Take in a header of those in `SEEN`, by its name in small letters."""
        if name == b"user-agent":
            self.agent = value.decode("latin-1")
        elif name == b"x-stainless-retry-count":
            self.retried = value != b"0"
        elif name == b"content-type":
            self.json = b"json" in value
        else:
            # A signature of Amazon's is another each time; what comes before its first slash names the key.
            key = value.partition(b"/")[0] if value.startswith(b"AWS4") else value
            self.secret += key.decode("latin-1")


#: Headers that `Sent.see` wants; those that it does not name authenticate.
SEEN = frozenset(
    {b"user-agent", b"x-stainless-retry-count", b"content-type"}
    | {b"authorization", b"api-key", b"x-api-key", b"x-goog-api-key"}
)

#: Their lengths: most headers are told apart by these, and quickly.
SEEN_LENGTHS = frozenset(map(len, SEEN))


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

    def status(self, response: Any) -> int:
        """The status of an answer."""

    def headers(self, response: Any) -> Headers:
        """The headers of an answer."""

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
