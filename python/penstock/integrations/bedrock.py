"""The gate in clients of Bedrock, boto3's and botocore's: around the request, inside of all of their events.

Each attempt is signed when it has its permit, since a signature is good for five minutes and a queue may be longer.
"""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from penstock import _parking
from penstock._core import Sent
from penstock.integrations.exchange import exchange
from penstock.integrations.wire import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock._core import Acquire, Permit
    from penstock.integrations.exchange import Outcome
    from penstock.integrations.gate import Gatekeeper
    from penstock.integrations.streams import Meter
    from penstock.integrations.wire import Headers

_SERVICES = frozenset({"bedrock-runtime", "bedrock-agent-runtime"})
_MADE = "make_request"
#: Answers from here on have an error in place of a result.
_ERRORS = 300


def govern(obj: Any, gatekeeper: Gatekeeper) -> bool:
    """Govern a client of Bedrock's run time."""
    endpoint = _endpoint(obj)
    if endpoint is None:
        return False
    credentials = getattr(obj, "_request_signer", None)
    vars(endpoint)[_MADE] = _Requests(endpoint, gatekeeper, credentials)
    return True


def ungovern(obj: Any) -> bool:
    """Undo `govern`."""
    endpoint = _endpoint(obj)
    if endpoint is None:
        return False
    vars(endpoint).pop(_MADE, None)
    return True


def _endpoint(obj: Any) -> Any:
    meta = getattr(obj, "meta", None)
    service = getattr(getattr(meta, "service_model", None), "service_name", None)
    return getattr(obj, "_endpoint", None) if service in _SERVICES else None


class _Operation(NamedTuple):
    """What is to be called: botocore's request, before it is made and signed."""

    params: dict[str, Any]
    model: Any


class _Answer(NamedTuple):
    """What came: as HTTP has it, and as botocore reads it."""

    http: Any
    parsed: dict[str, Any]


class _Requests:
    """Stands in place of an endpoint's ``make_request``."""

    __slots__ = ("_endpoint", "keeper", "wire")

    def __init__(self, endpoint: Any, keeper: Gatekeeper, signer: Any) -> None:
        self._endpoint = endpoint
        self.keeper = keeper
        self.wire = _Wire(endpoint, signer)

    def __call__(self, operation_model: Any, request_dict: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        # How often it was sent travels with the request, as botocore has it; so that counts are those of one call.
        call = _Operation(request_dict, operation_model)
        answer: _Answer = run(exchange(self.keeper, self.wire, call))
        return answer.http, answer.parsed

    def __deepcopy__(self, _memo: object) -> _Requests:
        return self


class _Wire:
    """How botocore sends requests and reads answers."""

    __slots__ = ("_endpoint", "_signer")

    def __init__(self, endpoint: Any, signer: Any) -> None:
        self._endpoint = endpoint
        self._signer = signer

    def sent(self, request: _Operation) -> Sent:
        """What is read of a request before it is sent."""
        url = urlsplit(request.params["url"])
        credentials = getattr(self._signer, "_credentials", None)
        headers = [
            (str(name), value if isinstance(value, bytes) else str(value))
            for name, value in request.params["headers"].items()
        ]
        return Sent(
            request.params["method"],
            url.hostname or "",
            url.port,
            url.path.encode(),
            headers,
            str(getattr(credentials, "access_key", "")),
        )

    async def body(self, request: _Operation) -> bytes:
        """The body of a request, which can still be sent."""
        body = request.params["body"]
        if isinstance(body, str):
            return body.encode()
        return bytes(body) if isinstance(body, (bytes, bytearray)) else b""

    def form(self, request: _Operation) -> bytes:  # noqa: ARG002
        """Nothing: there are no forms."""
        return b""

    def replayable(self, request: _Operation) -> bool:
        """Whether a request can be sent again."""
        return isinstance(request.params["body"], (bytes, bytearray, str))

    def with_body(self, request: _Operation, body: bytes) -> _Operation:
        """The same request with another body."""
        return request._replace(params={**request.params, "body": body})

    async def send(self, request: _Operation) -> _Answer:
        """Sign it and send it; give the answer, whose body has not been read if it is a stream."""
        params, model = request
        context = params["context"]
        endpoint = self._endpoint
        with contextlib.suppress(AttributeError):  # it only counts, for a header and for who asks
            attempt = context.get("retries", {}).get("attempt", 0) + 1
            endpoint._update_retries_context(context, attempt)  # noqa: SLF001
        prepared = endpoint.create_request(params, model)
        answer, error = endpoint._get_response(prepared, model, context)  # noqa: SLF001
        if error is not None:
            raise error
        http, parsed = answer
        about = parsed.get("ResponseMetadata")
        if isinstance(about, dict):
            about["RetryAttempts"] = context.get("retries", {}).get("attempt", 1) - 1
        return _Answer(http, parsed)

    def told(self, response: _Answer) -> tuple[int, Headers]:
        """The status and the headers of an answer."""
        headers = [(str(name).encode(), str(value).encode()) for name, value in response.http.headers.items()]
        return response.http.status_code, headers

    async def drain(self, response: _Answer) -> bytes:
        """The body of an answer as it came, read to its end."""
        body = _stream_of(response.parsed)
        if body is None:
            content: bytes = response.http.content
            return content
        raw = body._raw_stream  # noqa: SLF001
        try:
            return b"".join(raw.stream())
        finally:
            raw.close()

    def decoder(self, headers: Headers) -> None:
        """What takes the compression off the next bytes of a body: nothing."""

    def decoded(self, headers: Headers, raw: bytes) -> bytes:  # noqa: ARG002
        """A body without its compression: as it is."""
        return raw

    def answer(self, status: int, headers: Headers, raw: bytes, response: _Answer | None) -> _Answer:
        """An answer of this content, like ``response`` otherwise; an error that is remembered is read once more."""
        if response is not None:
            return self.whole(response, raw) if status < _ERRORS else response
        from botocore.awsrequest import AWSResponse

        named = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        http = AWSResponse("", status, named, io.BytesIO(raw))
        http._content = raw  # noqa: SLF001
        parser = self._endpoint._response_parser_factory.create_parser("rest-json")  # noqa: SLF001
        return _Answer(http, parser.parse({"status_code": status, "headers": http.headers, "body": raw}, None))

    def whole(self, response: _Answer, raw: bytes) -> _Answer:
        """The answer whose body was drained, with that body."""
        body = _stream_of(response.parsed)
        if body is not None:
            body._raw_stream = io.BytesIO(raw)  # noqa: SLF001
        return response

    async def opened(self, response: _Answer, meter: Meter) -> bytes:
        """Let the answer pass ``meter`` as it is read, and give what of it comes first; b"" if nothing does."""
        body = _stream_of(response.parsed)
        if body is None:
            meter.feed(response.http.content)
            meter.end()
            return b""
        raw = body._raw_stream = _Raw(body._raw_stream, meter)  # noqa: SLF001
        return raw.open()

    async def closed(self, response: _Answer) -> None:
        """Close an answer that nobody is given."""
        body = _stream_of(response.parsed)
        if body is not None:
            body.close()

    def strip(self, response: _Answer) -> None:
        """Take back what an answer says of its compression."""

    def error(self, kind: Any, text: str, request: _Operation) -> Exception:
        """The library's error of this kind once more."""
        from botocore.exceptions import HTTPClientError

        try:
            error: Exception = kind(error=text, endpoint_url=request.params["url"])
        except Exception:  # noqa: BLE001  an exception that wants to be made otherwise
            error = HTTPClientError(error=text)
        return error

    def status_error(self, outcome: Outcome, request: _Operation) -> Exception:
        """The library's error for an answer."""
        from botocore.exceptions import ClientError

        answer = self.answer(outcome.status, outcome.headers, outcome.body, None)
        error: Exception = ClientError(answer.parsed, request.model.name)
        return error

    def crowded(self) -> bool:
        """No: a thread holds nobody up."""
        return False

    async def turn(self) -> None:
        """Nothing."""

    async def wait(self, acquire: Acquire) -> Permit:
        """Wait for a permit."""
        return _parking.park(acquire)

    async def pause(self, seconds: float) -> None:
        """Wait between two attempts."""
        _parking.pause(seconds)


def _stream_of(parsed: dict[str, Any]) -> Any:
    """The stream in a parsed answer: of events, or of bytes."""
    return next((value for value in parsed.values() if hasattr(value, "_raw_stream")), None)


class _Raw:
    """The body of an answer as urllib3 has it, which passes a meter as it is read."""

    def __init__(self, raw: Any, meter: Meter) -> None:
        self._raw = raw
        self._meter = meter
        self._held = b""
        self._chunks: Iterator[bytes] | None = None
        self._over = False

    def open(self) -> bytes:
        """Read until there is something to hand on."""
        self._chunks = iter(self._raw.stream())
        self._held = next(self._pieces(), b"")
        return self._held

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        """The body, a piece after the other."""
        if self._held:
            held, self._held = self._held, b""
            yield held
        yield from self._pieces()

    def _pieces(self) -> Iterator[bytes]:
        while not self._over:
            self._meter.wait()
            try:
                chunk = next(self._chunks or iter(()))
            except StopIteration:
                self._over = True
                self._meter.end()
                return
            except BaseException as error:
                self._over = True
                self._meter.fail(error)
                raise
            chunk = self._meter.feed(chunk)
            if chunk:
                yield chunk

    def read(self, amount: int | None = None, *_: Any, **__: Any) -> bytes:
        """The next bytes; all of them without an amount."""
        pieces = [self._held]
        size = len(self._held)
        if amount is None or size < amount:
            for piece in self._pieces():
                pieces.append(piece)
                size += len(piece)
                if amount is not None and size >= amount:
                    break
        whole = b"".join(pieces)
        self._held = b"" if amount is None else whole[amount:]
        return whole if amount is None else whole[:amount]

    def close(self) -> None:
        """Nobody reads on."""
        self._over = True
        self._meter.close()
        self._raw.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)
