"""What users do with governed clients besides plain calls: redirects, bodies that are made as they go, clients that are
closed, shared, hooked, copied and governed anew while calls wait or are under way."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import pickle
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest
from governed import CLIENTS, URL, Client, answer, body, chunk, events, roomy, streamed, usage
from loops import IDLE, lasting, run, spent, standing, until

import penstock
from penstock import identity

openai = pytest.importorskip("openai")
anthropic = pytest.importorskip("anthropic")

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

#: The library that the SDKs of this environment are on.
SDK_LIBRARY = httpx2 if issubclass(openai.DefaultHttpxClient, httpx2.Client) else httpx
SECRET = "sk-secret-4711"


@pytest.fixture(params=CLIENTS)
def kind(request: pytest.FixtureRequest) -> tuple[Any, bool]:
    return request.param


def waits(limiter: penstock.Limiter, count: int = 1) -> Callable[[], bool]:
    return lambda: limiter.stats().waiting == count


def until_in_thread(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come"
        time.sleep(0.001)


# Requests.


def test_a_redirect_costs_no_tokens_and_holds_no_slot(kind: tuple[Any, bool]) -> None:
    library = kind[0]

    def provider(request: Any) -> Any:
        if request.url.path.endswith("/new"):
            return library.Response(200, json=answer())
        return library.Response(307, headers={"location": "/v1/chat/completions/new"}, content=b"moved")

    client = Client(kind, provider, roomy(concurrency=1))
    client.http.follow_redirects = True
    assert client.post(json=body(max_tokens=100)).json()["usage"] == usage()
    assert (client.sent, spent(client.limiter), spent(client.limiter, "tokens")) == (2, 2, 100)
    assert standing(client.limiter) == IDLE


def test_a_body_that_is_made_as_it_is_sent(kind: tuple[Any, bool]) -> None:
    """It is read before it is sent, as it says what the call costs; so it can be sent again, and asks for its usage."""
    library, tasks = kind
    failing = [True]

    def provider(request: Any) -> Any:
        assert not {"transfer-encoding", "content-length"} <= set(request.headers)
        assert json.loads(request.content)["stream_options"] == {"include_usage": True}
        if failing:
            failing.pop()
            return library.Response(503, headers={"retry-after": "0"})
        return streamed(library, tasks, events(chunk("hi"), {"choices": [], "usage": usage()}))

    pieces = json.dumps(body(stream=True)).encode()

    def made() -> Iterator[bytes]:
        yield pieces[:20]
        yield pieces[20:]

    async def amade() -> AsyncIterator[bytes]:
        for piece in made():
            yield piece

    client = Client(kind, provider)
    headers = {"content-type": "application/json"}
    if tasks:
        said = asyncio.run(client.http.post(URL, content=amade(), headers=headers)).content
    else:
        said = client.http.post(URL, content=made(), headers=headers).content
    assert b"hi" in said and b"usage" not in said
    assert client.sent == 2


def test_a_request_of_another_kind_that_is_made_as_it_is_sent_is_sent_once(kind: tuple[Any, bool]) -> None:
    library, tasks = kind

    def made() -> Iterator[bytes]:
        yield b"RIFF"

    async def amade() -> AsyncIterator[bytes]:
        yield b"RIFF"

    client = Client(kind, lambda _: library.Response(503, headers={"retry-after": "0"}))
    url, headers = "https://api.openai.com/v1/audio/transcriptions", {"content-type": "audio/wav"}
    if tasks:
        status = asyncio.run(client.http.post(url, content=amade(), headers=headers)).status_code
    else:
        status = client.http.post(url, content=made(), headers=headers).status_code
    assert (status, client.sent) == (503, 1)


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_form_with_a_file_is_sent_again(library: Any) -> None:
    seen: list[bytes] = []

    def provider(request: Any) -> Any:
        seen.append(request.read())
        return library.Response(200, json={"text": "hi"}) if len(seen) > 1 else library.Response(503)

    client = Client((library, False), provider, retry=penstock.Retry(attempts=2, initial=0.001))
    url = "https://api.openai.com/v1/audio/transcriptions"
    given = {"data": {"model": "whisper-1"}, "files": {"file": ("a.wav", io.BytesIO(b"RIFF" * 100), "audio/wav")}}
    assert client.http.post(url, **given).json() == {"text": "hi"}
    assert seen[0] == seen[1] and b"RIFF" * 100 in seen[1]


def test_a_request_that_is_sent_several_times_at_once_is_governed_each_time(kind: tuple[Any, bool]) -> None:
    """Who hedges sends one request object twice, and takes the answer that comes first."""
    library, tasks = kind
    client = Client(kind, lambda _: library.Response(200, json=answer()))
    request = client.http.build_request("POST", URL, json=body())

    def threads() -> None:
        each = [threading.Thread(target=client.http.send, args=(request,)) for _ in range(8)]
        for thread in each:
            thread.start()
        for thread in each:
            thread.join()

    async def many() -> None:
        await asyncio.gather(*(client.http.send(request) for _ in range(8)))

    asyncio.run(many()) if tasks else threads()
    assert (client.sent, client.limiter.stats().granted) == (8, 8)


def test_what_runs_in_the_background_is_not_refunded(kind: tuple[Any, bool]) -> None:
    """Its answer comes before it has run: what it will use is not known yet."""
    library = kind[0]
    queued = {"id": "r", "object": "response", "status": "queued", "background": True, "output": [], "usage": None}
    client = Client(kind, lambda _: library.Response(200, json=queued))
    asked = {"model": "o3", "input": "hello", "background": True}
    url = "https://gate.openai.azure.com/openai/v1/responses"  # where what is not used is given back
    client.post(url, json=asked)
    before = spent(client.limiter, "tokens")
    assert before > 200  # what is usual of an answer
    client.post(url, json={**asked, "max_output_tokens": 5_000})
    assert spent(client.limiter, "tokens") - before >= 5_000


# Clients.


def test_hooks_mounts_and_auth_of_a_client_stay(kind: tuple[Any, bool]) -> None:
    library, tasks = kind
    told: list[str] = []

    def mocked(name: str) -> Any:
        def handle(request: Any) -> Any:
            told.append(f"{name} {request.headers['authorization']}")
            return library.Response(200, json=answer())

        async def ahandle(request: Any) -> Any:
            return handle(request)

        return library.MockTransport(ahandle if tasks else handle)

    def hook(_: Any) -> None:
        told.append("hook")

    async def ahook(_: Any) -> None:
        told.append("hook")

    make = library.AsyncClient if tasks else library.Client
    hooks = {"request": [ahook if tasks else hook], "response": [ahook if tasks else hook]}
    http = make(
        transport=mocked("main"),
        mounts={"https://mounted.example": mocked("mounted")},
        event_hooks=hooks,
        auth=("user", "password"),
    )
    limiter = roomy()
    penstock.govern(http, limiter)

    async def both() -> None:
        for host in ("api.openai.com", "mounted.example"):
            sent = http.post(f"https://{host}/v1/chat/completions", json=body())
            if tasks:
                await sent

    asyncio.run(both())
    assert [line.split()[0] for line in told] == ["hook", "main", "hook", "hook", "mounted", "hook"]
    assert limiter.stats().granted == 2
    penstock.ungovern(http)
    told.clear()
    asyncio.run(both())
    assert len(told) == 6 and limiter.stats().granted == 2


def test_calls_that_wait_while_their_client_is_closed_are_not_sent(kind: tuple[Any, bool]) -> None:
    """Bare clients refuse to send once they are closed."""
    library, tasks = kind
    limiter = penstock.Limiter(concurrency=1)
    client = Client(kind, lambda _: library.Response(200, json=answer()), limiter)
    errors: list[BaseException] = []

    def call() -> None:
        try:
            client.http.post(URL, json=body())
        except RuntimeError as error:
            errors.append(error)

    def threads() -> None:
        permit = limiter.acquire()
        thread = threading.Thread(target=call)
        thread.start()
        until_in_thread(waits(limiter))
        client.http.close()
        permit.release()
        thread.join()

    async def in_tasks() -> None:
        permit = limiter.try_acquire()
        assert permit is not None
        call = asyncio.create_task(client.http.post(URL, json=body()))
        await until(waits(limiter))
        await client.http.aclose()
        permit.release()
        with pytest.raises(RuntimeError) as caught:
            await call
        errors.append(caught.value)

    asyncio.run(in_tasks()) if tasks else threads()
    assert client.sent == 0
    assert [str(error) for error in errors] == ["Cannot send a request, as the client has been closed."]
    assert standing(limiter) == IDLE


def test_a_client_that_is_governed_anew_while_calls_are_under_way(kind: tuple[Any, bool]) -> None:
    """Each call stays with the limiter that let it leave, and gives that its permit back."""
    library = kind[0]
    limiters = [penstock.Limiter(requests=lasting(100), concurrency=1) for _ in range(2)]
    seen: list[tuple[int, ...]] = []

    def provider(_: Any) -> Any:
        seen.append(tuple(limiter.stats().in_flight for limiter in limiters))
        change = [lambda: penstock.govern(client.http, limiters[1]), lambda: penstock.ungovern(client.http)]
        if len(seen) <= len(change):
            change[len(seen) - 1]()
        return library.Response(200, json=answer())

    client = Client(kind, provider, limiters[0])
    for _ in range(3):
        assert client.post().status_code == 200
    assert seen == [(1, 0), (0, 1), (0, 0)]
    assert [spent(limiter) for limiter in limiters] == [1, 1]
    assert [standing(limiter) for limiter in limiters] == [IDLE, IDLE]


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads on this platform")
@pytest.mark.parametrize("library", [httpx, httpx2])
def test_ctrl_c_ends_a_wait(library: Any) -> None:
    limiter = penstock.Limiter(concurrency=1)
    client = Client((library, False), lambda _: library.Response(200, json=answer()), limiter)
    permit = limiter.acquire()
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        until_in_thread(waits(limiter))
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    # A shell that starts this in the background has its signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            client.post()
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    permit.release()
    assert standing(limiter) == IDLE
    assert client.post().status_code == 200


def test_a_limiter_in_the_memory_of_another_process_lets_no_governed_call_leave() -> None:
    limiter = identity._stranded(penstock.Limiter, "elsewhere")(requests=10)
    sent: list[Any] = []
    client = Client((httpx2, False), sent.append, limiter)
    with pytest.raises(penstock.StoreUnavailable, match="give it a store that both share"):
        client.post()
    assert not sent


# Answers.


def test_a_stream_that_is_made_of_its_content_holds_nothing(kind: tuple[Any, bool]) -> None:
    """As mocks make them: nobody reads such a stream, nor closes it."""
    library = kind[0]
    sent = b"".join(events(chunk("hi"), {"choices": [], "usage": usage()}))

    def provider(_: Any) -> Any:
        return library.Response(200, content=sent, headers={"content-type": "text/event-stream"})

    client = Client(kind, provider, roomy(concurrency=1))
    for _ in range(2):
        assert client.post(json=body(stream=True)).content == b"".join(events(chunk("hi")))
        assert standing(client.limiter) == IDLE
    assert spent(client.limiter, "tokens") == 36


# SDKs.


def openai_client(handle: Callable[[Any], Any], **options: Any) -> Any:
    http_client = SDK_LIBRARY.Client(transport=SDK_LIBRARY.MockTransport(handle))
    return openai.OpenAI(api_key=SECRET, http_client=http_client, **options)


def of_path(request: Any) -> Any:
    """An answer as the path wants it."""
    path = request.url.path
    if path.endswith("/speech"):
        return SDK_LIBRARY.Response(200, content=b"ID3" * 1_000, headers={"content-type": "audio/mpeg"})
    if path.endswith("/embeddings"):
        data = [{"object": "embedding", "index": 0, "embedding": [0.1]}]
        return SDK_LIBRARY.Response(200, json={"object": "list", "data": data, "model": "m", "usage": usage(9, 0)})
    if path.endswith("/generations"):
        return SDK_LIBRARY.Response(200, json={"created": 1, "data": [{"b64_json": "QQ=="}]})
    if path.endswith("/batches"):
        return SDK_LIBRARY.Response(200, json={"id": "b", "object": "batch", "status": "validating"})
    if path.endswith("/responses"):
        return SDK_LIBRARY.Response(200, json=response())
    return SDK_LIBRARY.Response(200, json=answer(model="m", created=1))


def response() -> dict[str, Any]:
    content = [{"type": "output_text", "text": '{"city": "Bern"}', "annotations": []}]
    said = {"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": content}
    counted = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}
    return {"id": "r", "object": "response", "created_at": 1, "status": "completed", "output": [said], "usage": counted}


def test_every_way_of_calling_openai_is_one_permit() -> None:
    limiter = roomy(concurrency=1)
    client = penstock.govern(openai_client(of_path), limiter)
    asked: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    granted = 0
    ways: list[Callable[[], Any]] = [
        lambda: client.chat.completions.create(**asked).choices[0].message.content,
        lambda: client.chat.completions.with_raw_response.create(**asked).parse().choices,
        lambda: client.with_options(timeout=5, max_retries=7).chat.completions.create(**asked),
        lambda: client.copy().chat.completions.create(**asked),
        lambda: client.chat.completions.parse(**asked),
        lambda: client.audio.speech.create(model="tts-1", voice="alloy", input="hello").content,
        lambda: client.images.generate(model="gpt-image-1", prompt="a gate"),
        lambda: client.embeddings.create(model="m", input=["hello"]),
        lambda: client.batches.create(input_file_id="f", endpoint="/v1/chat/completions", completion_window="24h"),
        lambda: client.responses.create(model="m", input="hi").output_text,
        lambda: client.audio.transcriptions.create(model="whisper-1", file=("a.wav", b"RIFF")),
    ]
    for way in ways:
        assert way()
        granted += 1
        assert (limiter.stats().granted, standing(limiter)) == (granted, IDLE)
    with client.chat.completions.with_streaming_response.create(**asked) as raw:
        assert b"usage" in raw.read()
    assert limiter.stats().granted == granted + 1
    assert standing(limiter) == IDLE


def test_structured_output_of_a_stream_is_parsed_and_settled() -> None:
    pieces = [
        {"type": "response.created", "sequence_number": 0, "response": {**response(), "status": "in_progress"}},
        {"type": "response.completed", "sequence_number": 1, "response": response()},
    ]
    sent = b"".join(b"event: %s\ndata: %s\n\n" % (one["type"].encode(), json.dumps(one).encode()) for one in pieces)

    def handle(_: Any) -> Any:
        return SDK_LIBRARY.Response(200, content=sent, headers={"content-type": "text/event-stream"})

    limiter = roomy()
    client = penstock.govern(openai_client(handle), limiter)
    with client.responses.stream(model="m", input="hi") as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == '{"city": "Bern"}'
    assert (spent(limiter, "tokens"), standing(limiter)) == (18, IDLE)


def message_events() -> bytes:
    start = {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": [], "stop_reason": None}
    start |= {"stop_sequence": None, "usage": {"input_tokens": 11, "output_tokens": 1}}
    pieces: list[Any] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}}
            for _ in range(50)
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 50}},
        {"type": "message_stop"},
    ]
    return b"".join(b"event: %s\ndata: %s\n\n" % (one["type"].encode(), json.dumps(one).encode()) for one in pieces)


def anthropic_client(handle: Callable[[Any], Any]) -> Any:
    library = httpx2 if issubclass(anthropic.DefaultHttpxClient, httpx2.Client) else httpx
    http_client = library.Client(transport=library.MockTransport(handle))
    return library, anthropic.Anthropic(api_key=SECRET, http_client=http_client)


def test_a_block_of_anthropics_that_is_left_half_way_gives_its_permit_back() -> None:
    def handle(request: Any) -> Any:
        if request.url.path.endswith("/count_tokens"):
            return library.Response(200, json={"input_tokens": 11})
        return library.Response(200, content=message_events(), headers={"content-type": "text/event-stream"})

    library, client = anthropic_client(handle)
    limiter = roomy(concurrency=1)
    penstock.govern(client, limiter)
    asked: Any = {"model": "claude", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100}
    with client.messages.stream(**asked) as stream:
        for _ in stream.text_stream:
            break
    assert standing(limiter) == IDLE
    with pytest.raises(ZeroDivisionError), client.messages.stream(**asked) as stream:
        for _ in stream:
            raise ZeroDivisionError
    assert standing(limiter) == IDLE
    with client.messages.stream(**asked) as stream:
        assert stream.get_final_text() == "hi" * 50
    assert standing(limiter) == IDLE
    granted = limiter.stats().granted
    assert client.messages.count_tokens(model="claude", messages=asked["messages"]).input_tokens == 11
    assert limiter.stats().granted == granted


def test_a_wait_that_is_longer_than_a_scope_allows_says_so_in_words_of_the_sdk() -> None:
    limiter = penstock.Limiter(requests=penstock.per_minute(1), name="small")
    client = penstock.govern(openai_client(of_path, timeout=0.5), limiter)
    asked: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    client.chat.completions.create(**asked)
    with penstock.scope(timeout=1), pytest.raises(openai.OpenAIError) as caught:
        client.chat.completions.create(**asked)
    assert isinstance(caught.value, penstock.AcquireTimeout) and isinstance(caught.value, TimeoutError)
    assert "small" in str(caught.value) and caught.value.retry_after > 1
    assert limiter.stats().granted == 1


def test_no_key_is_shown_anywhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="penstock")
    refusal = {"error": {"code": "insufficient_quota", "message": "no"}}
    limiter = penstock.Limiter(requests=10, name="quiet")
    client = openai_client(lambda _: SDK_LIBRARY.Response(429, json=refusal))
    penstock.govern(client, limiter, retry=None)
    asked: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    shown = []
    for _ in range(2):
        with pytest.raises(openai.OpenAIError) as caught:
            client.chat.completions.create(**asked)
        shown += [repr(caught.value), str(caught.value)]
    limiter.update(requests=1)
    with penstock.scope(timeout=0), pytest.raises(penstock.QuotaExhausted) as refused:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "another"}])
    shown += [repr(refused.value), str(refused.value), repr(pickle.dumps(refused.value)), repr(vars(refused.value))]
    shown += [repr(limiter), str(limiter.stats()), repr(limiter.stats()), json.dumps(limiter.stats().as_dict())]
    transport = client._client._transport
    shown += [repr(transport), repr(transport.keeper), caplog.text]
    sent = penstock._core.Sent("POST", "api.openai.com", None, b"/v1", [(b"authorization", SECRET.encode())])
    shown += [repr(sent), str(sent), *(str(getattr(sent, name)) for name in dir(sent) if not name.startswith("__"))]
    assert not [text for text in shown if SECRET in text]


@pytest.mark.parametrize(
    "header", [b"Authorization", b"api-key", b"x-api-key", b"x-goog-api-key", b"OpenAI-Project", b"OpenAI-Organization"]
)
def test_a_failure_is_that_of_one_key_and_one_project(header: bytes) -> None:
    """What was given up is remembered by this number: another key or project is asked anew."""

    def remembered(**headers: bytes) -> int:
        pairs = [(header, headers["value"]), (b"user-agent", headers["agent"])]
        return penstock._core.Sent("POST", "api.openai.com", None, b"/v1/chat/completions", pairs).hash(b"{}")

    assert remembered(value=b"one", agent=b"a") == remembered(value=b"one", agent=b"b")
    assert remembered(value=b"one", agent=b"a") != remembered(value=b"other", agent=b"a")


def test_one_client_in_several_loops_at_once() -> None:
    def handle(_: Any) -> Any:
        return SDK_LIBRARY.Response(200, json=answer(model="m", created=1))

    async def ahandle(request: Any) -> Any:
        await asyncio.sleep(0)
        return handle(request)

    http_client = SDK_LIBRARY.AsyncClient(transport=SDK_LIBRARY.MockTransport(ahandle))
    limiter = roomy(concurrency=3)
    client = penstock.govern(openai.AsyncOpenAI(api_key=SECRET, http_client=http_client), limiter)

    async def calls() -> None:
        asked: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        await asyncio.gather(*(client.chat.completions.create(**asked) for _ in range(10)))

    threads = [threading.Thread(target=lambda: run(calls())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert limiter.stats().granted == 40
    assert standing(limiter) == IDLE


def test_a_client_on_aiohttp_in_several_runs_and_loops() -> None:
    """``openai[aiohttp]``: a session of aiohttp belongs to one event loop, and is closed with it."""
    pytest.importorskip("aiohttp")
    from penstock.testing import FakeProvider

    limiter = roomy(concurrency=2)
    asked: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 30}
    with FakeProvider(latency=0.0) as provider:
        http_client = openai.DefaultAioHttpClient()
        client = penstock.govern(
            openai.AsyncOpenAI(base_url=provider.base_url, api_key="k", http_client=http_client), limiter
        )

        async def calls() -> None:
            each = (client.chat.completions.create(**asked) for _ in range(4))
            assert len(await asyncio.gather(*each)) == 4
            stream = await client.chat.completions.create(**asked, stream=True)
            assert [event async for event in stream]
            stream = await client.chat.completions.create(**asked, stream=True)
            async for _ in stream:
                break
            await stream.close()

        for _ in range(2):
            asyncio.run(calls())
        threads = [threading.Thread(target=asyncio.run, args=(calls(),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (provider.summary().sent, limiter.stats().granted) == (30, 30)
    assert standing(limiter) == IDLE
