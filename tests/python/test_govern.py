"""`penstock.govern`: what a governed client charges, tries again, hands on and gives back."""

from __future__ import annotations

import asyncio
import copy
import gc
import gzip
import json
import pickle
import sys
import threading
import warnings
import zlib
from typing import Any

import httpx
import httpx2
import openai
import pytest
from governed import CLIENTS, URL, Client, answer, body, chunk, events, roomy, streamed, usage
from loops import IDLE, lasting, spent, standing

import penstock
from penstock import Limiter, Retry
from penstock.testing import virtual_time

try:
    import anthropic
except ImportError:  # as in the environments of other Pythons
    anthropic = None  # type: ignore[assignment]


@pytest.fixture(params=CLIENTS)
def kind(request: pytest.FixtureRequest) -> tuple[Any, bool]:
    return request.param


def ok(library: Any, **more: Any) -> Any:
    return library.Response(200, json=answer(**more))


def failure(library: Any, status: int, code: str = "", headers: dict[str, str] | None = None) -> Any:
    return library.Response(status, json={"error": {"message": code, "code": code}}, headers=headers)


# What is changed, and changed back.


def test_a_client_stays_what_it_is(kind: tuple[Any, bool]) -> None:
    library, tasks = kind
    http = library.AsyncClient() if tasks else library.Client()
    before, mounts = http._transport, dict(http._mounts)
    limiter = roomy()
    assert penstock.govern(http, limiter) is http
    assert type(http) is (library.AsyncClient if tasks else library.Client)
    governed = http._transport
    assert governed is not before
    assert penstock.govern(http, roomy()) is http
    assert http._transport is governed  # once, with another limiter
    assert penstock.ungovern(http) is http
    assert http._transport is before
    assert http._mounts == mounts
    assert penstock.ungovern(http)._transport is before


def test_proxies_of_the_environment_stay(kind: tuple[Any, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    library, tasks = kind
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "internal.example")
    http = library.AsyncClient() if tasks else library.Client()
    before = dict(http._mounts)
    assert len(before) >= 2
    penstock.govern(http, roomy())
    assert list(http._mounts) == list(before)
    for pattern, transport in http._mounts.items():
        assert (transport is None) == (before[pattern] is None)
        assert transport is None or transport.inner is before[pattern]
    penstock.ungovern(http)
    assert http._mounts == before


def test_what_cannot_be_governed_is_named() -> None:
    with pytest.raises(TypeError, match="not <object"):
        penstock.govern(object(), roomy())
    with pytest.raises(TypeError, match="limiter must be a Limiter"):
        penstock.govern(httpx.Client(), 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one model"):
        penstock.govern(httpx.Client(), {})
    with pytest.raises(TypeError, match="not 'gpt' to 3"):
        penstock.govern(httpx.Client(), {"gpt": 3})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="retry must be a Retry or None, not 3"):
        penstock.govern(httpx.Client(), roomy(), retry=3)  # type: ignore[arg-type]


# What a call is charged.


def test_a_call_is_charged_and_settled(kind: tuple[Any, bool]) -> None:
    during = []

    def provider(request: Any) -> Any:
        during.append((standing(client.limiter), spent(client.limiter, "tokens")))
        return ok(client.library)

    client = Client(kind, provider)
    response = client.post(json=body("x" * 400, max_tokens=500))
    assert response.json() == answer()
    assert during[0][0] == (1, 0)
    assert during[0][1] == 500  # OpenAI reserves the larger of text and max_tokens
    assert standing(client.limiter) == IDLE
    assert spent(client.limiter) == 1
    assert spent(client.limiter, "tokens") == 500  # and gives nothing back


def test_usage_settles_where_nothing_is_reserved(kind: tuple[Any, bool]) -> None:
    client = Client(
        kind, lambda _: client.library.Response(200, json={"usage": {"input_tokens": 30, "output_tokens": 4}})
    )
    client.post("https://api.anthropic.com/v1/messages", json=body("x" * 4_000, max_tokens=100))
    assert spent(client.limiter, "tokens") == 34


def test_what_is_free_passes_free(kind: tuple[Any, bool]) -> None:
    limiter = Limiter(requests=lasting(1))
    limiter.acquire().release()  # nothing is left
    client = Client(kind, lambda _: client.library.Response(200, json={"data": []}), limiter)
    assert client.get("https://api.openai.com/v1/models").status_code == 200
    assert client.post("https://api.openai.com/v1/files", json={}).status_code == 200
    assert client.sent == 2
    assert spent(limiter) == 1


def packed(library: Any, encoding: str, pieces: list[bytes]) -> list[bytes]:
    """The pieces, each compressed so that it can be read when it comes."""
    if encoding == "identity":
        return pieces
    if encoding in {"gzip", "deflate"}:
        zipper = zlib.compressobj(wbits=31 if encoding == "gzip" else 15)
        return [*(zipper.compress(piece) + zipper.flush(zlib.Z_SYNC_FLUSH) for piece in pieces), zipper.flush()]
    if encoding == "br":
        brotli = pytest.importorskip("brotli").Compressor()
        return [*(brotli.process(piece) + brotli.flush() for piece in pieces), brotli.finish()]
    # What a library reads this with, it has where it is installed as the library wants it.
    if library is httpx:
        zstd = pytest.importorskip("zstandard").ZstdCompressor().compressobj()
        return [*(zstd.compress(piece) + zstd.flush(1) for piece in pieces), zstd.flush()]
    zstd = pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd").ZstdCompressor()
    return [*(zstd.compress(piece, zstd.FLUSH_BLOCK) for piece in pieces), zstd.flush()]


ENCODINGS = ["gzip", "deflate", "br", "zstd", "identity"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_usage_is_read_from_compressed_answers(kind: tuple[Any, bool], encoding: str) -> None:
    raw = json.dumps({"usage": {"input_tokens": 30, "output_tokens": 4}}).encode()
    whole = b"".join(packed(kind[0], encoding, [raw]))
    headers = {"content-encoding": encoding, "content-type": "application/json"}
    client = Client(kind, lambda _: client.library.Response(200, headers=headers, content=whole))
    response = client.post("https://api.anthropic.com/v1/messages", json=body(max_tokens=100))
    assert response.content == raw
    assert response.headers["content-encoding"] == encoding
    assert spent(client.limiter, "tokens") == 34


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_usage_is_read_from_compressed_streams(kind: tuple[Any, bool], encoding: str) -> None:
    """Of one who asked for it, and of one who did not: whose answer is handed on without the chunk, unpacked."""
    raw = events(chunk("hi"), chunk(" there"), chunk(usage=usage(11, 2)))
    pieces = packed(kind[0], encoding, raw)
    headers = {"content-encoding": encoding}
    client = Client(kind, lambda _: streamed(*kind, [piece for piece in pieces if piece], **headers))
    asked = body(stream=True, stream_options={"include_usage": True})
    assert b"".join(client.stream(json=asked)) == b"".join(pieces)  # as it came
    assert spent(client.limiter, "tokens") == 13
    got = b"".join(client.stream(json=body(stream=True)))
    assert got == b"".join([*raw[:2], raw[-1]])
    assert spent(client.limiter, "tokens") == 26
    assert standing(client.limiter) == IDLE


@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_read_is_not_given_back(kind: tuple[Any, bool], stream: bool) -> None:
    """A compression that nobody here knows, which a caller asked for: the answer passes as it is, charged in full."""
    kept = "text/event-stream" if stream else "application/json"
    headers = {"content-encoding": "own", "content-type": kept}
    client = Client(kind, lambda _: streamed(*kind, [b"\x00packed", b"\x01more"], **headers))
    asked = body(stream=stream, max_tokens=5_000)
    if stream:
        assert b"".join(client.stream(json=asked)) == b"\x00packed\x01more"
    else:
        assert client.post(json=asked).content == b"\x00packed\x01more"
    assert spent(client.limiter, "tokens") >= 5_000
    assert standing(client.limiter) == IDLE


def test_a_body_that_is_not_what_it_says_is_handed_on(kind: tuple[Any, bool]) -> None:
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    pieces = [b"this is not gzip"]
    client = Client(kind, lambda _: streamed(*kind, pieces, **headers))
    with pytest.raises(client.library.DecodingError):
        client.post()
    assert standing(client.limiter) == IDLE


USAGES = [
    ({"type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59}, 59),
    ({"type": "duration", "seconds": 9}, 0),
    (None, 0),
]


@pytest.mark.parametrize(("used", "tokens"), USAGES)
@pytest.mark.parametrize("path", ["audio/transcriptions", "images/edits"])
def test_forms_with_files_are_a_request_and_the_tokens_that_they_report(
    kind: tuple[Any, bool], path: str, used: Any, tokens: int
) -> None:
    """Sound by the second has no tokens; a picture's are in its answer. The form names the model, and its limiter."""
    library, tasks = kind
    said = {"text": "hello " * 50, **({} if used is None else {"usage": used})}
    limiter, other = roomy(), roomy()
    client = Client(kind, lambda _: library.Response(200, json=said), {"gpt-*": limiter, "*": other})
    form = {"data": {"model": "gpt-4o-transcribe"}, "files": {"file": ("a.mp3", b"x" * 10_000)}}
    url = f"https://api.openai.com/v1/{path}"
    response = asyncio.run(client.http.post(url, **form)) if tasks else client.http.post(url, **form)
    assert response.json() == said
    assert (spent(limiter), spent(limiter, "tokens")) == (1, tokens)
    assert spent(other) == 0
    assert standing(limiter) == IDLE


# Retries.


def test_a_failed_request_is_tried_again(kind: tuple[Any, bool]) -> None:
    answers = iter([failure(kind[0], 503), failure(kind[0], 500), ok(kind[0])])
    client = Client(kind, lambda _: next(answers))
    with virtual_time():
        response = client.post()
    assert response.status_code == 200
    assert client.sent == 3
    assert client.limiter.stats().granted == 3  # each attempt passes the limiter
    assert standing(client.limiter) == IDLE


def test_the_last_failure_is_handed_on_and_no_sdk_tries_again(kind: tuple[Any, bool]) -> None:
    client = Client(kind, lambda _: failure(kind[0], 503, "down", {"x-should-retry": "true", "x-other": "1"}))
    with virtual_time():
        response = client.post()
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "down"
    assert response.headers.get_list("x-should-retry") == ["false"]
    assert response.headers["x-other"] == "1"
    assert client.sent == 3
    assert standing(client.limiter) == IDLE
    assert client.limiter.retry_budget.account()[:2] == (0, 0)


def test_a_stated_wait_is_waited_for(kind: tuple[Any, bool]) -> None:
    answers = iter([failure(kind[0], 429, "rate_limit_exceeded", {"retry-after": "7"}), ok(kind[0])])
    client = Client(kind, lambda _: next(answers))
    with virtual_time() as clock:
        assert client.post().status_code == 200
        assert clock.now >= 7
    assert client.sent == 2


@pytest.mark.parametrize(
    ("status", "code"),
    [(429, "insufficient_quota"), (400, "context_length_exceeded"), (401, "invalid_api_key"), (404, "model_not_found")],
)
def test_what_no_retry_cures_is_sent_once(kind: tuple[Any, bool], status: int, code: str) -> None:
    client = Client(kind, lambda _: failure(kind[0], status, code))
    with virtual_time():
        response = client.post()
    assert (response.status_code, client.sent) == (status, 1)
    assert response.headers["x-should-retry"] == "false"
    assert spent(client.limiter, "tokens") == 0


def test_a_retry_that_finds_no_permit_says_what_failed_before(kind: tuple[Any, bool]) -> None:
    limiter = Limiter(requests=lasting(1))
    client = Client(kind, lambda _: failure(kind[0], 503, "down"), limiter)
    with virtual_time(), penstock.scope(timeout=0), pytest.raises(penstock.AcquireTimeout) as raised:
        client.post()
    assert isinstance(raised.value.__cause__, client.library.HTTPStatusError)
    assert raised.value.__cause__.response.status_code == 503
    assert client.sent == 1
    assert standing(limiter) == IDLE


def test_no_retry_at_all(kind: tuple[Any, bool]) -> None:
    client = Client(kind, lambda _: failure(kind[0], 503), retry=None)
    assert client.post().status_code == 503
    assert client.sent == 1


def test_retry_asks_on(kind: tuple[Any, bool]) -> None:
    seen = []

    def on(error: BaseException) -> bool:
        seen.append(error)
        return error.response.status_code == 409  # type: ignore[attr-defined]

    answers = iter([failure(kind[0], 409), failure(kind[0], 503)])
    client = Client(kind, lambda _: next(answers), retry=Retry(attempts=3, on=on))
    with virtual_time():
        assert client.post().status_code == 503
    assert [type(error) for error in seen] == [client.library.HTTPStatusError] * 2


def test_a_connection_that_never_was_costs_nothing(kind: tuple[Any, bool]) -> None:
    client = Client(kind, lambda _: client.library.ConnectError("refused"))
    with virtual_time(), pytest.raises(client.library.ConnectError, match="refused"):
        client.post()
    assert client.sent == 3
    assert standing(client.limiter) == IDLE
    assert spent(client.limiter) == 0
    assert spent(client.limiter, "tokens") == 0


def test_nothing_is_refunded_for_a_request_that_timed_out(kind: tuple[Any, bool]) -> None:
    client = Client(kind, lambda _: client.library.ReadTimeout("too long"), retry=None)
    with pytest.raises(client.library.ReadTimeout):
        client.post(json=body(max_tokens=500))
    assert spent(client.limiter) == 1
    assert spent(client.limiter, "tokens") == 500
    assert standing(client.limiter) == IDLE


def test_what_is_no_failure_of_a_provider_is_raised_as_it_is(kind: tuple[Any, bool]) -> None:
    client = Client(kind, lambda _: ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        client.post()
    assert client.sent == 1
    assert standing(client.limiter) == IDLE


def test_a_body_that_breaks_off_is_fetched_again(kind: tuple[Any, bool]) -> None:
    broken = [b'{"usage": ', httpx.RemoteProtocolError("peer closed connection")]
    made = iter([streamed(*kind, broken, **{"content-type": "application/json"}), ok(kind[0])])
    client = Client(kind, lambda _: next(made))
    with virtual_time():
        assert client.post().json() == answer()
    assert client.sent == 2


# What was given up is not sent again at once.


def test_layers_above_are_answered_without_a_request(kind: tuple[Any, bool]) -> None:
    client = Client(kind, lambda _: failure(kind[0], 503, "down"))
    with virtual_time() as clock:
        for _ in range(6):
            response = client.post()
            assert (response.status_code, response.json()["error"]["code"]) == (503, "down")
            assert response.headers["x-should-retry"] == "false"
        assert client.sent == 3
        client.post(json=body("something else"))
        assert client.sent == 6
        client.post(headers={"authorization": "Bearer another key"})
        assert client.sent == 9
        clock.advance(4)  # the backoff after three attempts
        client.post()
        assert client.sent == 12


def test_a_stated_wait_is_how_long_it_is_remembered(kind: tuple[Any, bool]) -> None:
    client = Client(kind, lambda _: failure(kind[0], 429, "slow down", {"retry-after": "900"}))
    with virtual_time() as clock:
        assert client.post().status_code == 429
        assert client.sent == 1  # nobody waits a quarter of an hour
        clock.advance(890)
        assert client.post().status_code == 429
        assert client.sent == 1
        clock.advance(20)
        client.post()
        assert client.sent == 2


def test_errors_are_remembered_too(kind: tuple[Any, bool]) -> None:
    client = Client(kind, lambda _: client.library.ReadTimeout("too long"))
    with virtual_time():
        for _ in range(3):
            with pytest.raises(client.library.ReadTimeout, match="too long") as raised:
                client.post()
            assert raised.value.request.url == URL
    assert client.sent == 3


def test_an_answer_ends_what_is_remembered(kind: tuple[Any, bool]) -> None:
    answers = iter([failure(kind[0], 503), ok(kind[0]), failure(kind[0], 503), ok(kind[0])])
    client = Client(kind, lambda _: next(answers), retry=None)
    with virtual_time() as clock:
        assert client.post().status_code == 503
        clock.advance(1.5)
        assert client.post().status_code == 200
        assert client.post().status_code == 503
        assert client.sent == 3


def test_an_sdk_that_tries_again_is_answered_for_longer(kind: tuple[Any, bool]) -> None:
    client = Client(kind, lambda _: failure(kind[0], 503), retry=None)
    with virtual_time() as clock:
        client.post()
        for count in ("1", "2"):
            clock.advance(8)  # longer than the backoff
            client.post(headers={"x-stainless-retry-count": count})
        assert client.sent == 1
        client.post(headers={"x-stainless-retry-count": "0"})
        assert client.sent == 2


# Streams.


def test_a_stream_holds_its_permit_to_its_end(kind: tuple[Any, bool]) -> None:
    pieces = events(chunk("a"), chunk("b"), chunk(usage=usage(20, 5)))
    client = Client(kind, lambda _: streamed(*kind, pieces))
    held = []
    got = client.stream(lambda _: held.append(standing(client.limiter)) or True)  # type: ignore[func-returns-value]
    assert held == [(1, 0)] * len(got)
    assert standing(client.limiter) == IDLE
    assert spent(client.limiter, "tokens") == 25
    assert client.limiter.retry_budget.account()[:2] == (0, 0)


def test_streams_are_asked_for_their_usage_and_the_caller_does_not_see_it(kind: tuple[Any, bool]) -> None:
    pieces = events(chunk("a", usage=None), chunk("b", usage=None), chunk(usage=usage()))
    client = Client(kind, lambda _: streamed(*kind, pieces))
    got = b"".join(client.stream())
    assert got == b"".join(pieces[:2] + pieces[3:])
    (request,) = client.requests
    assert json.loads(request.content) == body(stream=True, stream_options={"include_usage": True})
    assert int(request.headers["content-length"]) == len(request.content)
    assert request.headers["accept-encoding"] == "identity"
    assert spent(client.limiter, "tokens") == 18


def test_who_asked_for_the_usage_sees_it(kind: tuple[Any, bool]) -> None:
    pieces = events(chunk("a"), chunk(usage=usage()))
    client = Client(kind, lambda _: streamed(*kind, pieces))
    asked = body(stream=True, stream_options={"include_usage": True})
    assert b"".join(client.stream(json=asked)) == b"".join(pieces)
    assert json.loads(client.requests[0].content) == asked
    assert spent(client.limiter, "tokens") == 18


def test_streams_that_are_not_to_be_asked_are_estimated(kind: tuple[Any, bool]) -> None:
    pieces = events(chunk("some words and a few more of them"), chunk("and the end"))
    client = Client(kind, lambda _: streamed(*kind, pieces), stream_usage=False)
    assert b"".join(client.stream(json=body("word " * 100, stream=True))) == b"".join(pieces)
    assert json.loads(client.requests[0].content) == body("word " * 100, stream=True)
    assert 90 <= spent(client.limiter, "tokens") <= 150


def test_a_server_that_knows_no_such_option_is_not_asked_again(kind: tuple[Any, bool]) -> None:
    def provider(request: Any) -> Any:
        if b"stream_options" in request.content:
            return client.library.Response(400, json={"error": {"message": "Unrecognized argument: stream_options"}})
        return streamed(*kind, events(chunk("a")))

    client = Client(kind, provider)
    assert b"".join(client.stream()) == b"".join(events(chunk("a")))
    assert client.sent == 2
    assert b"".join(client.stream()) == b"".join(events(chunk("a")))
    assert client.sent == 3
    assert client.limiter.stats().granted == 3
    assert standing(client.limiter) == IDLE


def test_a_compressed_stream_that_was_not_to_be(kind: tuple[Any, bool]) -> None:
    pieces = events(chunk("a"), chunk(usage=usage()))
    packer = zlib.compressobj(wbits=31)
    packed = [packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]
    client = Client(kind, lambda _: streamed(*kind, [*packed, packer.flush()], **{"content-encoding": "gzip"}))
    assert b"".join(client.stream()) == pieces[0] + pieces[2]
    assert spent(client.limiter, "tokens") == 18


def test_a_compressed_stream_of_one_who_asked(kind: tuple[Any, bool]) -> None:
    pieces = events(chunk("a"), chunk(usage=usage()))
    packed = gzip.compress(b"".join(pieces))
    client = Client(kind, lambda _: streamed(*kind, [packed[:30], packed[30:]], **{"content-encoding": "gzip"}))
    got = client.stream(json=body(stream=True, stream_options={"include_usage": True}))
    assert gzip.decompress(b"".join(got)) == b"".join(pieces)
    assert spent(client.limiter, "tokens") == 18


def test_a_stream_that_is_closed_half_way_refunds_nothing(kind: tuple[Any, bool]) -> None:
    pieces = events(chunk("a"), chunk("b"), chunk("c"), chunk(usage=usage()))
    client = Client(kind, lambda _: streamed(*kind, pieces))
    client.stream(lambda got: len(got) < 2, json=body(stream=True, max_tokens=400))
    assert standing(client.limiter) == IDLE
    assert spent(client.limiter, "tokens") == 400


def test_a_stream_closed_after_its_last_event_is_whole(kind: tuple[Any, bool]) -> None:
    client = Client(kind, lambda _: streamed(*kind, [*events(chunk("a")), b": more"]), stream_usage=False)
    client.stream(lambda got: b"[DONE]" not in got[-1], json=body("word " * 10, stream=True))
    assert spent(client.limiter, "tokens") < 30


def test_a_stream_that_nobody_reads_gives_its_permit_back(kind: tuple[Any, bool]) -> None:
    client = Client(kind, lambda _: streamed(*kind, events(chunk("a"), chunk("b"))))
    request = client.http.build_request("POST", URL, json=body(stream=True))

    def threads() -> None:
        response = client.http.send(request, stream=True)
        assert standing(client.limiter) == (1, 0)
        del response
        gc.collect()  # httpx's response and its stream hold each other
        assert standing(client.limiter) == IDLE

    async def tasks() -> None:
        response = await client.http.send(request, stream=True)
        assert standing(client.limiter) == (1, 0)
        del response
        gc.collect()  # httpx's response and its stream hold each other
        assert standing(client.limiter) == IDLE

    asyncio.run(tasks()) if client.tasks else threads()


def test_a_stream_that_breaks_is_not_sent_again(kind: tuple[Any, bool]) -> None:
    broken = [*events(chunk("a"), done=False), kind[0].RemoteProtocolError("peer closed connection")]
    client = Client(kind, lambda _: streamed(*kind, broken))
    with pytest.raises(client.library.RemoteProtocolError, match="peer closed"):
        client.stream()
    assert client.sent == 1
    assert standing(client.limiter) == IDLE
    assert client.limiter.retry_budget.account()[:2] == (0, 0)


def test_a_stream_that_breaks_before_its_first_byte_is_sent_again(kind: tuple[Any, bool]) -> None:
    made = iter([[kind[0].RemoteProtocolError("peer closed connection")], events(chunk("a"))])
    client = Client(kind, lambda _: streamed(*kind, next(made)))
    with virtual_time():
        assert b"".join(client.stream()) == b"".join(events(chunk("a")))
    assert client.sent == 2
    assert standing(client.limiter) == IDLE


OVERLOADED = (
    b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n'
)


def test_a_stream_that_begins_with_an_error_is_sent_again(kind: tuple[Any, bool]) -> None:
    made = iter([[OVERLOADED], events(chunk("a"))])
    client = Client(kind, lambda _: streamed(*kind, next(made)))
    with virtual_time():
        assert b"".join(client.stream()) == b"".join(events(chunk("a")))
    assert client.sent == 2
    assert standing(client.limiter) == IDLE


def test_an_error_that_a_stream_begins_with_is_handed_on_in_the_end(kind: tuple[Any, bool]) -> None:
    client = Client(kind, lambda _: streamed(*kind, [OVERLOADED]))
    with virtual_time():
        for _ in range(2):
            assert b"".join(client.stream()) == OVERLOADED
    assert client.sent == 3
    assert standing(client.limiter) == IDLE


def test_an_error_after_the_first_event_is_not_sent_again(kind: tuple[Any, bool]) -> None:
    client = Client(kind, lambda _: streamed(*kind, [*events(chunk("a"), done=False), OVERLOADED]))
    assert b"".join(client.stream()) == b"".join([*events(chunk("a"), done=False), OVERLOADED])
    assert client.sent == 1
    assert standing(client.limiter) == IDLE
    assert client.limiter.stats().speed < 1 or client.limiter.stats().cooldown > 0  # but the limiter heard of it


# Models.


def test_each_model_has_its_limiter(kind: tuple[Any, bool]) -> None:
    mini, large, rest = roomy(), roomy(), roomy()
    limiters = {"gpt-4o*": large, "gpt-4o-mini*": mini, "*": rest}
    client = Client(kind, lambda _: ok(kind[0]), limiters)
    for model in ("gpt-4o", "gpt-4o-mini", "gpt-4o-mini-2024-07-18", "o3", "gpt-4o-2024-11-20"):
        client.post(json=body() | {"model": model})
    assert [spent(limiter) for limiter in (mini, large, rest)] == [2, 2, 1]


def test_a_model_that_no_limiter_is_for_passes_with_a_warning_once(kind: tuple[Any, bool]) -> None:
    limiter = roomy()
    client = Client(kind, lambda _: ok(kind[0]), {"gpt-4o": limiter})
    with pytest.warns(RuntimeWarning, match="model 'gpt-4o-mini' passes without a limiter"):
        assert client.post().status_code == 200
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert client.post().status_code == 200
    with pytest.warns(RuntimeWarning, match="a call that names no model passes"):
        client.post(json={"input": "x"})
    assert spent(limiter) == 0


# What the limiter says.


def test_what_is_raised_is_the_sdks_own_error_too(kind: tuple[Any, bool]) -> None:
    limiter = Limiter(requests=lasting(1))
    limiter.acquire().release()
    client = Client(kind, lambda _: ok(kind[0]), limiter)
    with penstock.scope(timeout=0), pytest.raises(penstock.AcquireTimeout) as raised:
        client.post()
    error = raised.value
    assert isinstance(error, TimeoutError)
    assert isinstance(error, openai.OpenAIError)
    if anthropic is not None:
        assert isinstance(error, anthropic.AnthropicError)
    assert type(error).__qualname__ == "AcquireTimeout"
    assert client.sent == 0
    for other in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert isinstance(other, penstock.AcquireTimeout)
        assert isinstance(other, openai.OpenAIError)
        assert str(other) == str(error)
        assert other.retry_after == error.retry_after


def test_a_cost_that_cannot_be_is_said_at_once(kind: tuple[Any, bool]) -> None:
    client = Client(kind, lambda _: ok(kind[0]), Limiter(tokens=100))
    with pytest.raises(penstock.CostExceedsLimit) as raised:
        client.post(json=body(max_tokens=500))
    assert isinstance(raised.value, (ValueError, openai.OpenAIError))
    assert raised.value.cost == 500
    assert client.sent == 0


# Permits of others.


def test_a_call_inside_a_permit_is_covered_by_it(kind: tuple[Any, bool]) -> None:
    client = Client(kind, lambda _: ok(kind[0]), roomy(concurrency=1))

    async def tasks() -> None:
        async with client.limiter.permit(1_000):
            await client.http.post(URL, json=body())

    if client.tasks:
        asyncio.run(tasks())
    else:
        with client.limiter.permit(1_000):
            client.post()
    assert spent(client.limiter) == 1
    assert spent(client.limiter, "tokens") == 18


def test_a_permit_that_a_hook_took_is_used_once(kind: tuple[Any, bool]) -> None:
    from penstock.integrations.gate import carry

    client = Client(kind, lambda _: ok(kind[0]))

    async def tasks() -> None:
        carry(client.limiter, await client.limiter.aacquire())
        for _ in range(2):
            await client.http.post(URL, json=body())

    if client.tasks:
        asyncio.run(tasks())
    else:
        carry(client.limiter, client.limiter.acquire())
        for _ in range(2):
            client.post()
    assert client.limiter.stats().granted == 2
    assert spent(client.limiter) == 2
    assert spent(client.limiter, "tokens") == 36
    assert standing(client.limiter) == IDLE


# Threads and tasks.


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_cancelled_while_queued_and_in_flight(library: Any) -> None:
    async def main() -> None:
        limiter = roomy(concurrency=1)
        reached, sent = asyncio.Event(), []

        async def provider(request: Any) -> Any:
            sent.append(request)
            reached.set()
            await asyncio.Event().wait()

        http = penstock.govern(library.AsyncClient(transport=library.MockTransport(provider)), limiter)
        first = asyncio.create_task(http.post(URL, json=body(max_tokens=300)))
        await reached.wait()
        second = asyncio.create_task(http.post(URL, json=body(max_tokens=300)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert standing(limiter) == (1, 1)
        second.cancel()
        await asyncio.wait([second])
        assert standing(limiter) == (1, 0)
        first.cancel()
        await asyncio.wait([first])
        assert standing(limiter) == IDLE
        assert len(sent) == 1
        assert spent(limiter, "tokens") == 300  # the provider may have run it

    asyncio.run(main())


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_the_wait_for_a_permit_is_no_part_of_a_timeout(library: Any) -> None:
    def provider(request: Any) -> Any:
        assert request.extensions["timeout"]["read"] == 0.5
        return ok(library)

    async def main() -> None:
        limiter = Limiter(requests=penstock.per_minute(1))
        http = library.AsyncClient(transport=library.MockTransport(provider), timeout=0.5)
        penstock.govern(http, limiter)
        await asyncio.gather(*(http.post(URL, json=body()) for _ in range(3)))

    with virtual_time() as clock:
        asyncio.run(main())
        assert clock.now >= 120


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_threads_share_a_client(library: Any) -> None:
    limiter = roomy(concurrency=3)
    lock, running, most = threading.Lock(), [0], [0]

    def provider(request: Any) -> Any:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        with lock:
            running[0] -= 1
        return ok(library)

    http = penstock.govern(library.Client(transport=library.MockTransport(provider)), limiter)
    threads = [threading.Thread(target=lambda: [http.post(URL, json=body()) for _ in range(10)]) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] <= 3
    assert spent(limiter) == 120
    assert standing(limiter) == IDLE


# Copies.


def test_a_governed_client_can_be_copied(kind: tuple[Any, bool]) -> None:
    client = Client(kind, lambda _: ok(kind[0]))
    for http in (copy.copy(client.http), copy.deepcopy(client.http)):
        assert http._transport.keeper.limiter is client.limiter
    deep = Client.__new__(Client)
    vars(deep).update(vars(client), http=copy.deepcopy(client.http))
    assert deep.post().status_code == 200
    assert spent(client.limiter) == 1


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize("tasks", [False, True])
def test_a_governed_client_can_be_pickled(library: Any, tasks: bool) -> None:
    limiter = Limiter(requests=100, name=f"pickled-{library.__name__}-{tasks}")
    http = penstock.govern(library.AsyncClient() if tasks else library.Client(timeout=7, headers={"a": "b"}), limiter)
    other = pickle.loads(pickle.dumps(http))
    assert type(other) is type(http)
    assert other.timeout == http.timeout
    assert other._transport.keeper.limiter is limiter
    assert penstock.ungovern(other)._transport.__class__ is penstock.ungovern(http)._transport.__class__
