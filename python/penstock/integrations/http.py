"""The gate in clients of httpx and httpx2: written once, made for each when it is met."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import threading
import types
import weakref
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from penstock import _parking
from penstock._core import Sent
from penstock.forgotten import running_loop, waiting
from penstock.integrations import copies
from penstock.integrations.exchange import exchange
from penstock.integrations.gate import Gatekeeper
from penstock.integrations.pools import AsyncPools, Pools, keep
from penstock.integrations.wire import run

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType

    from typing_extensions import Self

    from penstock._core import Acquire, Permit
    from penstock.integrations.exchange import Outcome
    from penstock.integrations.streams import Meter
    from penstock.integrations.wire import Headers

_MODULES = ("httpx", "httpx2")

#: Attaching and detaching change several members of a client at once.
_changing = threading.RLock()


def library_of(thing: Any) -> Any:
    """The library whose class or object ``thing`` is.

    Raises:
        TypeError: when it is neither httpx nor httpx2.
    """
    kind: Any = thing if isinstance(thing, type) else type(thing)
    return _library(kind)


@lru_cache(maxsize=64)
def _library(kind: Any) -> Any:
    # One may stand in for the other under its name, so the name of the class's module decides.
    for base in kind.__mro__:
        name = base.__module__.partition(".")[0]
        if name in _MODULES:
            return importlib.import_module(name)
    raise TypeError(f"{kind.__qualname__} is no class of {' or '.join(_MODULES)}")


class Wire:
    """How httpx and httpx2 send requests and read answers."""

    __slots__ = ("client", "library")

    def __init__(self, library: Any) -> None:
        self.library: Any = library
        #: The client that was governed; nothing where a transport was made for clients that are not known.
        self.client: Callable[[], Any] | None = None

    def _check(self, permit: Permit | None = None) -> None:
        """After a wait: raises what a client raises that is asked to send when it is closed."""
        client = None if self.client is None else self.client()
        if client is not None and client.is_closed:
            if permit is not None:
                permit.abandon()  # its call never leaves
            raise RuntimeError("Cannot send a request, as the client has been closed.")

    def sent(self, request: Any) -> Sent:
        """What is read of a request before it is sent."""
        url = request.url
        return Sent(request.method, url.host, url.port, url.raw_path, request.headers.raw)

    def replayable(self, request: Any) -> bool:
        """Whether a request can be sent again: its body is there, or is made of files, anew each time."""
        return hasattr(request, "_content") or type(request.stream).__name__ == "MultipartStream"

    def form(self, request: Any) -> bytes:
        """The model that a form with files is for, as JSON has it; b"" if it names none."""
        for field in getattr(request.stream, "fields", ()):
            value = getattr(field, "value", None)
            if getattr(field, "name", None) == "model" and isinstance(value, (str, bytes)):
                name = value if isinstance(value, str) else value.decode("utf-8", "replace")
                return json.dumps({"model": name}).encode()
        return b""

    def with_body(self, request: Any, body: bytes) -> Any:
        """The same request with another body, that asks for an answer that is not compressed."""
        headers = request.headers.copy()
        headers.pop("transfer-encoding", None)
        headers["content-length"] = str(len(body))
        headers["accept-encoding"] = "identity"
        return self.library.Request(
            request.method, request.url, headers=headers, content=body, extensions=request.extensions
        )

    def told(self, response: Any) -> tuple[int, Headers]:
        """The status and the headers of an answer."""
        return response.status_code, response.headers.raw

    def decoder(self, headers: Headers) -> Callable[[bytes], bytes] | None:
        """What takes the compression off the next bytes of a body; None if that is not known."""
        try:
            decoder = self.library.Response(200, headers=headers)._get_content_decoder()  # noqa: SLF001
        except Exception:  # noqa: BLE001  headers made to harm
            return None
        if type(decoder).__name__ == "IdentityDecoder":
            return None  # a compression whose library is not installed

        def decode(chunk: bytes) -> bytes:
            plain: Any = decoder.decode(chunk)  # bytes in httpx, pieces of bounded size in httpx2
            return plain if isinstance(plain, bytes) else b"".join(plain)

        return decode

    def decoded(self, headers: Headers, raw: bytes) -> bytes:
        """A body without its compression; as it is if that is not known."""
        if all(name.lower() != b"content-encoding" for name, _ in headers):
            return raw
        decode = self.decoder(headers)
        try:
            return raw if decode is None else decode(raw)
        except Exception:  # noqa: BLE001  it is not what it says; whoever reads it will hear of it
            return raw

    def answer(self, status: int, headers: Headers, raw: bytes, response: Any) -> Any:
        """An answer of this content, like ``response`` otherwise, which may be None."""
        extensions = {} if response is None else response.extensions
        return self.library.Response(
            status, headers=headers, stream=self.library.ByteStream(raw), extensions=extensions
        )

    def read(self, response: Any, meter: Meter) -> bytes:
        """Let an answer pass ``meter`` that was made of its content, as mocks do: nobody will read its stream."""
        raw = b"".join(response.stream)
        shown = meter.feed(raw)
        if meter.verdict() is None:
            shown += meter.end()
            if shown != raw:
                response._content = shown  # noqa: SLF001
        return shown

    def whole(self, response: Any, raw: bytes) -> Any:
        """The answer whose body was drained, with that body."""
        if not hasattr(response, "_content"):  # else it was made of its content, which is there
            response.stream = self.library.ByteStream(raw)
        return response

    def error(self, kind: Any, text: str, request: Any) -> Exception:
        """The library's error of this kind once more."""
        if issubclass(kind, self.library.RequestError):
            error: Exception = kind(text, request=request)
            return error
        try:
            error = kind(text)
        except Exception:  # noqa: BLE001  an exception that wants to be made otherwise
            error = self.library.TransportError(text)
        return error

    def status_error(self, outcome: Outcome, request: Any) -> Exception:
        """The library's error for an answer."""
        response = self.answer(outcome.status, outcome.headers, outcome.body, None)
        response.request = request
        error: Exception = self.library.HTTPStatusError(
            f"{outcome.status} {response.reason_phrase}", request=request, response=response
        )
        return error

    def strip(self, response: Any) -> None:
        """Take back what an answer says of its compression."""
        response.headers.pop("content-encoding", None)
        response.headers.pop("content-length", None)


class SyncWire(Wire):
    """For calls that wait in threads."""

    __slots__ = ("_pools", "_stream")

    def __init__(self, library: Any, pools: Pools) -> None:
        super().__init__(library)
        self._pools = pools
        self._stream: Any = _streams(library)[0]

    async def body(self, request: Any) -> bytes:
        """The body of a request, which can still be sent."""
        body: bytes = request.read()
        return body

    async def send(self, request: Any) -> Any:
        """Send it; give the answer, whose body has not been read."""
        token = _sending.set(True)
        try:
            return self._pools.here().handle_request(request)
        finally:
            _sending.reset(token)

    async def drain(self, response: Any) -> bytes:
        """The body of an answer as it came, read to its end; the answer is closed then."""
        stream = response.stream
        try:
            return b"".join(stream)
        finally:
            stream.close()

    async def opened(self, response: Any, meter: Meter) -> bytes:
        """Let the answer pass ``meter`` as it is read, and give what of it comes first; b"" if nothing does."""
        if hasattr(response, "_content"):
            return self.read(response, meter)
        stream = response.stream = self._stream(response.stream, meter)
        first: bytes = stream.open()
        return first

    async def closed(self, response: Any) -> None:
        """Close an answer that nobody is given."""
        response.stream.close()

    def crowded(self) -> bool:
        """No: a thread holds nobody up."""
        return False

    async def turn(self) -> None:
        """Nothing."""

    async def wait(self, acquire: Acquire) -> Permit:
        """Wait for a permit."""
        permit = _parking.park(acquire)
        self._check(permit)
        return permit

    async def pause(self, seconds: float) -> None:
        """Wait between two attempts."""
        _parking.pause(seconds)
        self._check()


class AsyncWire(Wire):
    """For calls that wait in tasks."""

    __slots__ = ("_pools", "_stream")

    def __init__(self, library: Any, pools: AsyncPools) -> None:
        super().__init__(library)
        self._pools = pools
        self._stream: Any = _streams(library)[1]

    async def body(self, request: Any) -> bytes:
        """The body of a request, which can still be sent."""
        body: bytes | None = getattr(request, "_content", None)
        return await request.aread() if body is None else body

    async def send(self, request: Any) -> Any:
        """Send it; give the answer, whose body has not been read."""
        transport = self._pools.known() or await self._pools.here()
        token = _sending.set(True)
        try:
            return await transport.handle_async_request(request)
        finally:
            _sending.reset(token)

    async def drain(self, response: Any) -> bytes:
        """The body of an answer as it came, read to its end; the answer is closed then."""
        stream = response.stream
        try:
            return b"".join([chunk async for chunk in stream])
        finally:
            await stream.aclose()

    async def opened(self, response: Any, meter: Meter) -> bytes:
        """Let the answer pass ``meter`` as it is read, and give what of it comes first; b"" if nothing does."""
        if hasattr(response, "_content"):
            return self.read(response, meter)
        stream = response.stream = self._stream(response.stream, meter)
        first: bytes = await stream.open()
        return first

    async def closed(self, response: Any) -> None:
        """Close an answer that nobody is given."""
        await response.stream.aclose()

    def crowded(self) -> bool:
        """Whether other tasks are ready, as those that were started together. uvloop does not say."""
        event_loop = running_loop()
        return event_loop is not None and bool(getattr(event_loop, "_ready", True))

    async def turn(self) -> None:
        """Let them all come this far: what holds the loop up meanwhile comes before their permits."""
        await _turn()

    async def wait(self, acquire: Acquire) -> Permit:
        """Wait for a permit."""
        with _alive(), waiting:
            permit = await acquire
        self._check(permit)
        return permit

    async def pause(self, seconds: float) -> None:
        """Wait between two attempts."""
        with _alive():
            await _parking.apause(seconds)
        self._check()


@types.coroutine
def _turn() -> Generator[None, None, None]:
    """Lets all others of the loop run that are ready."""
    yield


def _alive() -> Any:
    """Keeps alive whatever a queued call stands in: the heartbeat of a LangGraph node."""
    if "langgraph.runtime" not in sys.modules:
        return contextlib.nullcontext()
    return importlib.import_module("penstock.integrations.langgraph").Beating()


# Bodies of answers that are read as they come. Iterators of their own, not generators: one that is dropped ends at
# once, and not when an event loop comes to it.


class _Body:
    def __init__(self, source: Any, meter: Meter) -> None:
        self._source = source
        self._chunks: Any = None
        self._meter = meter
        #: What was read before anybody asked for it.
        self._held = b""
        self._over = False


class _SyncBody(_Body):
    def open(self) -> bytes:
        """Read until there is something to hand on."""
        self._chunks = iter(self._source)
        self._held = next(self, b"")
        return self._held

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if self._held:
            held, self._held = self._held, b""
            return held
        while not self._over:
            self._meter.wait()
            try:
                chunk = next(self._chunks)
            except StopIteration:
                self._over = True
                chunk = self._meter.end()
            except BaseException as error:
                self._over = True
                self._meter.fail(error)
                raise
            else:
                chunk = self._meter.feed(chunk)
            if chunk:
                return chunk
        raise StopIteration

    def close(self) -> None:
        self._over = True
        self._meter.close()
        self._source.close()


class _AsyncBody(_Body):
    async def open(self) -> bytes:
        """Read until there is something to hand on."""
        self._meter.event_loop = running_loop()
        self._chunks = aiter(self._source)
        self._held = await anext(self, b"")
        return self._held

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._held:
            held, self._held = self._held, b""
            return held
        while not self._over:
            self._meter.wait()
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                self._over = True
                chunk = self._meter.end()
            except BaseException as error:
                self._over = True
                self._meter.fail(error)
                raise
            else:
                chunk = self._meter.feed(chunk)
            if chunk:
                return chunk
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._over = True
        self._meter.close()
        await _shut(self._source, self._chunks)

    def __del__(self) -> None:
        # The library's own generators, dropped half-way, would be closed from outside and from inside at once.
        event_loop = None if self._over else running_loop()
        if event_loop is not None:
            keep(event_loop.create_task(_shut(self._source, self._chunks)))


async def _shut(source: Any, chunks: Any) -> None:
    await source.aclose()
    close = getattr(chunks, "aclose", None)
    if close is not None:
        await close()


@lru_cache(maxsize=4)
def _streams(library: Any) -> tuple[type, type]:
    """The bodies, as the library wants them."""
    return (
        type("GovernedStream", (_SyncBody, library.SyncByteStream), {"__module__": __name__}),
        type("GovernedAsyncStream", (_AsyncBody, library.AsyncByteStream), {"__module__": __name__}),
    )


# Transports.

#: What marks a request that is governed already, by a transport further out, which is about to send it.
_MARK = "penstock"
_sending: ContextVar[bool] = ContextVar("penstock_sending", default=False)


class Governed:
    """A transport that lets requests through as a gatekeeper says; in place of another, or around one."""

    #: Whether it is for tasks.
    tasks = False

    def __init__(self, inner: Any, keeper: Gatekeeper, library: Any = None, *, own: bool = False) -> None:
        self.inner = inner
        self.keeper = keeper
        self.library = library
        #: The gatekeeper that it was made with, for one that `penstock.transport` gave.
        self.own = keeper if own else None
        self._wire: Any = None
        if library is not None:
            self._meet(library)

    def _meet(self, library: Any) -> Any:
        raise NotImplementedError

    def _wire_for(self, request: Any) -> Any:
        """How the library sends that a request is of; a transport without one of its own takes the first it meets."""
        wire = self._wire
        if wire is None:
            with _changing:
                wire = self._wire or self._meet(library_of(request))
        return wire

    def belongs_to(self, client: Any) -> None:
        """Say whose transport it is."""
        self._wire.client = weakref.ref(client)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        # Frameworks copy what holds their clients; a copy shares the connections, as it shares the limiter.
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # One of `penstock.transport`: where it is read it sends as one does that was just made.
        inner = None if getattr(self.inner, "_pool", None) is not None else self.inner
        return _transport_again, (self.tasks, self.own or self.keeper, inner)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.keeper!r} around {self.inner!r}>"


class Transport(Governed):
    """For ``Client``."""

    def _meet(self, library: Any) -> Any:
        if self.inner is None:
            self.inner = library.HTTPTransport()
        self.library = library
        self._pools = Pools(self.inner)
        self._wire = SyncWire(library, self._pools)
        return self._wire

    def handle_request(self, request: Any) -> Any:
        """Send a request, when it may leave."""
        wire = self._wire or self._wire_for(request)
        if _sending.get() and _MARK in request.extensions:
            return self._pools.here().handle_request(request)
        # It stays: one request may be sent several times at once, each time by its own thread or task.
        request.extensions[_MARK] = True
        return run(exchange(self.keeper, wire, request))

    def close(self) -> None:
        """Close the connections."""
        if self._wire is not None:
            self._pools.close()

    def __enter__(self) -> Self:
        enter = getattr(self.inner, "__enter__", None)
        if enter is not None:
            enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncTransport(Governed):
    """For ``AsyncClient``."""

    tasks = True

    def _meet(self, library: Any) -> Any:
        if self.inner is None:
            self.inner = library.AsyncHTTPTransport()
        self.library = library
        self._pools = AsyncPools.of(self.inner)
        self._wire = AsyncWire(library, self._pools)
        return self._wire

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request, when it may leave."""
        wire = self._wire or self._wire_for(request)
        if _sending.get() and _MARK in request.extensions:
            return await wire.send(request)
        request.extensions[_MARK] = True
        return await exchange(self.keeper, wire, request)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._wire is not None:
            await self._pools.aclose()

    async def __aenter__(self) -> Self:
        enter = getattr(self.inner, "__aenter__", None)
        if enter is not None:
            await enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


@lru_cache(maxsize=4)
def _transports(library: Any) -> tuple[type, type]:
    """The transports, as the library wants them."""
    return (
        type("GovernedTransport", (Transport, library.BaseTransport), {"__module__": __name__}),
        type("GovernedAsyncTransport", (AsyncTransport, library.AsyncBaseTransport), {"__module__": __name__}),
    )


def transport(limiter: Any, retry: Any, stream_usage: bool, inner: Any) -> Transport:
    """What `penstock.transport` gives."""
    keeper = Gatekeeper(limiter, retry, stream_usage)
    return Transport(inner, keeper, None if inner is None else _library_if_any(inner), own=True)


def atransport(limiter: Any, retry: Any, stream_usage: bool, inner: Any) -> AsyncTransport:
    """What `penstock.atransport` gives."""
    keeper = Gatekeeper(limiter, retry, stream_usage)
    return AsyncTransport(inner, keeper, None if inner is None else _library_if_any(inner), own=True)


def _library_if_any(inner: Any) -> Any:
    """The library of a transport; None for one that is no class of either, until the first request tells."""
    try:
        return library_of(inner)
    except TypeError:
        return None


def _transport_again(tasks: bool, keeper: Gatekeeper, inner: Any) -> Governed:
    kind = AsyncTransport if tasks else Transport
    return kind(inner, keeper, None if inner is None else _library_if_any(inner), own=True)


# Clients.


def attach(http_client: Any, gatekeeper: Gatekeeper, *, again: bool = True) -> None:
    """Govern a ``Client`` or ``AsyncClient`` of httpx or httpx2 in place.

    Its transport and those of its proxies are wrapped, so that proxies, timeouts and settings stay what they are.

    Args:
        http_client: the client.
        gatekeeper: who lets its requests through.
        again: whether a client that is governed already changes its gatekeeper.

    Raises:
        TypeError: for anything else.
    """
    lib: Any = library_of(http_client)
    tasks = isinstance(http_client, lib.AsyncClient)
    if not tasks and not isinstance(http_client, lib.Client):
        raise TypeError(f"http_client must be a Client or AsyncClient of {lib.__name__}, not {http_client!r}")
    kind = _transports(lib)[tasks]

    def governed(transport: Any) -> Any:
        if isinstance(transport, Governed):
            if again:
                transport.keeper = gatekeeper
            return transport
        made = kind(transport, gatekeeper, lib)
        made.belongs_to(http_client)
        return made

    with _changing:
        _replace(http_client, governed)
        copies.teach(http_client)


def detach(http_client: Any) -> None:
    """Undo `attach`. Harmless on a client that is not governed."""

    def bare(transport: Any) -> Any:
        if not isinstance(transport, Governed):
            return transport
        if transport.own is None:
            return transport.inner
        transport.keeper = transport.own
        return transport

    with _changing:
        _replace(http_client, bare)
        copies.unteach(http_client)


def _replace(client: Any, change: Callable[[Any], Any]) -> None:
    """Puts other transports into a client; one that stands in several places stays one."""
    changed: dict[int, Any] = {id(None): None}

    def once(transport: Any) -> Any:
        if id(transport) not in changed:
            changed[id(transport)] = change(transport)
        return changed[id(transport)]

    mounts = client._mounts  # noqa: SLF001
    for pattern, transport in list(mounts.items()):
        mounts[pattern] = once(transport)
    client._transport = once(client._transport)  # noqa: SLF001


def govern(obj: Any, gatekeeper: Gatekeeper) -> bool:
    """Govern ``obj``, if it is a client."""
    lib: Any = library_of(obj)
    if not isinstance(obj, (lib.Client, lib.AsyncClient)):
        return False
    attach(obj, gatekeeper)
    return True


def ungovern(obj: Any) -> bool:
    """Undo `govern`."""
    lib: Any = library_of(obj)
    if not isinstance(obj, (lib.Client, lib.AsyncClient)):
        return False
    detach(obj)
    return True
