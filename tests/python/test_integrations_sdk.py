"""Governed clients of real SDKs, in front of a provider that fails: what they raise, and how often they ask."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import httpx2
import openai
import pytest
from governed import answer, chunk, events, roomy, usage
from loops import IDLE, spent, standing

import penstock
from penstock import Limiter, Retry

anthropic = pytest.importorskip("anthropic")
cohere = pytest.importorskip("cohere")
groq = pytest.importorskip("groq")
genai = pytest.importorskip("google.genai")
mistral = pytest.importorskip("mistralai.client")
cohere_http = pytest.importorskip("cohere.core.http_client")
ApiError = pytest.importorskip("cohere.core.api_error").ApiError

QUICK = Retry(attempts=3, initial=0.01, max_delay=0.05)

MESSAGE = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 11, "output_tokens": 7},
}
GENERATED = {
    "candidates": [{"content": {"parts": [{"text": "hi"}], "role": "model"}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 11, "candidatesTokenCount": 7, "totalTokenCount": 18},
}
COHERE = {
    "id": "x",
    "finish_reason": "COMPLETE",
    "message": {"role": "assistant", "content": [{"type": "text", "text": "hi"}]},
    "usage": {"billed_units": {"input_tokens": 11, "output_tokens": 7}},
}


class Server:
    """Answers each request with what the next of ``answers`` says; the last one stays."""

    def __init__(self, *answers: Any) -> None:
        self.answers: list[Any] = list(answers)
        self.hold = Event()
        self.requests: list[tuple[str, dict[str, Any]]] = []

    def reached(self, count: int) -> None:
        """Wait until so many requests have come: a handler may be later than the timeout of its client."""
        limit = time.monotonic() + 20
        while len(self.requests) < count and time.monotonic() < limit:
            time.sleep(0.01)

    def next(self) -> Any:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextmanager
def serving(server: Server) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length", 0)))
            server.requests.append((self.path, json.loads(raw)))
            said = server.next()
            if said == "hangs":
                server.hold.wait(20)
            if said is None or said == "hangs":  # drops the connection
                self.close_connection = True
                return
            status, content, *more = said
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            kind = "text/event-stream" if isinstance(content, bytes) else "application/json"
            self.send_response(status)
            for name, value in {"content-type": kind, **(more[0] if more else {})}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}"
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


Call = Callable[[str, Limiter, Any], Any]


def made(client: Any, limiter: Limiter, retry: Any) -> Any:
    return penstock.govern(client, limiter, retry=retry)


def finished(coroutine: Any, client: Any) -> Any:
    async def main() -> Any:
        try:
            return await coroutine
        finally:
            await client.close()

    return asyncio.run(main())


ASKED: Any = [{"role": "user", "content": "hello"}]


def call_openai(url: str, limiter: Limiter, retry: Any) -> Any:
    with made(openai.OpenAI(base_url=f"{url}/v1", api_key="k"), limiter, retry) as client:
        return client.chat.completions.create(model="gpt-4o-mini", messages=ASKED).usage.total_tokens


def call_async_openai(url: str, limiter: Limiter, retry: Any) -> Any:
    client = made(openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k"), limiter, retry)
    return finished(client.chat.completions.create(model="gpt-4o-mini", messages=ASKED), client).usage.total_tokens


def call_azure(url: str, limiter: Limiter, retry: Any) -> Any:
    azure = openai.AzureOpenAI(azure_endpoint=url, api_key="k", api_version="2025-01-01-preview")
    with made(azure, limiter, retry) as client:
        return client.chat.completions.create(model="gpt-4o-mini", messages=ASKED).usage.total_tokens


def call_anthropic(url: str, limiter: Limiter, retry: Any) -> Any:
    with made(anthropic.Anthropic(base_url=url, api_key="k"), limiter, retry) as client:
        used = client.messages.create(model="claude", messages=ASKED, max_tokens=50).usage
        return used.input_tokens + used.output_tokens


def call_async_anthropic(url: str, limiter: Limiter, retry: Any) -> Any:
    client = made(anthropic.AsyncAnthropic(base_url=url, api_key="k"), limiter, retry)
    used = finished(client.messages.create(model="claude", messages=ASKED, max_tokens=50), client).usage
    return used.input_tokens + used.output_tokens


def call_groq(url: str, limiter: Limiter, retry: Any) -> Any:
    with made(groq.Groq(base_url=url, api_key="k"), limiter, retry) as client:
        return client.chat.completions.create(model="llama", messages=ASKED).usage.total_tokens


def call_mistral(url: str, limiter: Limiter, retry: Any) -> Any:
    with made(mistral.Mistral(server_url=url, api_key="k"), limiter, retry) as client:
        return client.chat.complete(model="mistral-small", messages=ASKED).usage.total_tokens


def call_cohere(url: str, limiter: Limiter, retry: Any) -> Any:
    with made(cohere.ClientV2(base_url=url, api_key="k"), limiter, retry) as client:
        units = client.chat(model="command", messages=ASKED).usage.billed_units
        return int(units.input_tokens + units.output_tokens)


def google(url: str, limiter: Limiter, retry: Any) -> Any:
    return made(genai.Client(api_key="k", http_options={"base_url": url}), limiter, retry)


def call_google(url: str, limiter: Limiter, retry: Any) -> Any:
    client = google(url, limiter, retry)
    return client.models.generate_content(model="gemini-2.5-flash", contents="hello").usage_metadata.total_token_count


def call_async_google(url: str, limiter: Limiter, retry: Any) -> Any:
    client = google(url, limiter, retry)
    coroutine = client.aio.models.generate_content(model="gemini-2.5-flash", contents="hello")
    return asyncio.run(coroutine).usage_metadata.total_token_count


CHAT = answer(created=1, model="m")

#: How to call, a good answer, the SDK's errors of an answer and of none.
SDKS = [
    pytest.param(call_openai, CHAT, openai.APIStatusError, openai.APIConnectionError, id="openai"),
    pytest.param(call_async_openai, CHAT, openai.APIStatusError, openai.APIConnectionError, id="openai-tasks"),
    pytest.param(call_azure, CHAT, openai.APIStatusError, openai.APIConnectionError, id="azure"),
    pytest.param(call_anthropic, MESSAGE, anthropic.APIStatusError, anthropic.APIConnectionError, id="anthropic"),
    pytest.param(
        call_async_anthropic, MESSAGE, anthropic.APIStatusError, anthropic.APIConnectionError, id="anthropic-tasks"
    ),
    pytest.param(call_groq, CHAT, groq.APIStatusError, groq.APIConnectionError, id="groq"),
    pytest.param(call_mistral, CHAT, Exception, Exception, id="mistral"),
    pytest.param(call_cohere, COHERE, ApiError, Exception, id="cohere"),
    pytest.param(call_google, GENERATED, genai.errors.APIError, Exception, id="google"),
    pytest.param(call_async_google, GENERATED, genai.errors.APIError, Exception, id="google-tasks"),
]
sdks = pytest.mark.parametrize(("call", "good", "refused", "unanswered"), SDKS)


@pytest.fixture(autouse=True)
def _quick_sdks(monkeypatch: pytest.MonkeyPatch) -> None:
    """SDKs that cannot be kept from coming back sleep before they do; that is no part of what is tested."""
    for package in (anthropic, groq, openai):
        monkeypatch.setattr(package._base_client.BaseClient, "_calculate_retry_timeout", lambda *_: 0.0)
    monkeypatch.setattr(cohere_http, "_retry_timeout", lambda **_: 0.0, raising=False)


@sdks
def test_a_call_is_charged_what_it_used(call: Call, good: Any, refused: Any, unanswered: Any) -> None:
    limiter = roomy()
    server = Server((200, good))
    with serving(server) as url:
        assert call(url, limiter, QUICK) == 18
    assert len(server.requests) == 1
    assert spent(limiter) == 1
    assert spent(limiter, "tokens") == (11 if call in {call_google, call_async_google} else 18)
    assert standing(limiter) == IDLE


@sdks
def test_a_failing_provider_gets_three_requests(call: Call, good: Any, refused: Any, unanswered: Any) -> None:
    limiter = roomy()
    server = Server((500, {"error": {"message": "down"}}))
    with serving(server) as url, pytest.raises(refused):
        call(url, limiter, QUICK)
    assert len(server.requests) == 3
    assert spent(limiter) == 3
    assert standing(limiter) == IDLE


@sdks
def test_a_spent_quota_is_asked_once(call: Call, good: Any, refused: Any, unanswered: Any) -> None:
    limiter = roomy()
    said = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota", "type": "x"}}
    server = Server((429, said))
    with serving(server) as url, pytest.raises(refused):
        call(url, limiter, QUICK)
    assert len(server.requests) == 1


@sdks
def test_a_connection_that_breaks_is_tried_again(call: Call, good: Any, refused: Any, unanswered: Any) -> None:
    limiter = roomy()
    server = Server(None, None, (200, good))
    with serving(server) as url:
        assert call(url, limiter, QUICK) == 18
    assert len(server.requests) == 3
    assert standing(limiter) == IDLE


@sdks
def test_connections_that_keep_breaking(call: Call, good: Any, refused: Any, unanswered: Any) -> None:
    limiter = roomy()
    server = Server(None)
    with serving(server) as url, pytest.raises(unanswered):
        call(url, limiter, QUICK)
    assert len(server.requests) == 3
    assert standing(limiter) == IDLE


@sdks
def test_no_permit_in_time(call: Call, good: Any, refused: Any, unanswered: Any) -> None:
    limiter = Limiter(requests=penstock.per_day(1))
    limiter.acquire().release()
    server = Server((200, good))
    with serving(server) as url, penstock.scope(timeout=0), pytest.raises(Exception) as raised:
        call(url, limiter, QUICK)
    behind = raised.value if isinstance(raised.value, penstock.AcquireTimeout) else raised.value.__cause__
    assert isinstance(behind, penstock.AcquireTimeout)
    if call is not call_groq:  # whose SDK wraps whatever it does not know
        assert behind is raised.value
    assert server.requests == []
    assert limiter.stats().timeouts == 1


@pytest.mark.parametrize("attempts", [1, 2])
def test_timeouts_are_the_sdks_own(attempts: int) -> None:
    retry = Retry(attempts=attempts, initial=0.0, max_delay=0.0)
    timeout = httpx2.Timeout(20.0, read=0.2)
    server = Server("hangs")
    limiter = roomy()
    with serving(server) as url:
        with made(openai.OpenAI(base_url=f"{url}/v1", api_key="k", timeout=timeout), limiter, retry) as client:
            with pytest.raises(openai.APITimeoutError) as raised:
                client.chat.completions.create(model="m", messages=ASKED)
            assert type(raised.value.__cause__).__name__ == "ReadTimeout"
        with made(anthropic.Anthropic(base_url=url, api_key="k", timeout=timeout), limiter, retry) as client:
            with pytest.raises(anthropic.APITimeoutError):
                client.messages.create(model="claude", messages=ASKED, max_tokens=50)
        server.hold.set()
        server.reached(2 * attempts)
    assert len(server.requests) == 2 * attempts
    assert spent(limiter) == 2 * attempts  # nothing is refunded
    assert standing(limiter) == IDLE


def test_streams_of_sdks() -> None:
    pieces = b"".join(events(chunk("a", created=1, model="m"), chunk("b", created=1, model="m"), chunk(usage=usage())))
    server = Server((200, pieces))
    limiter = roomy()
    with serving(server) as url, made(openai.OpenAI(base_url=f"{url}/v1", api_key="k"), limiter, QUICK) as client:
        stream = client.chat.completions.create(model="m", messages=ASKED, stream=True)
        assert [one.choices[0].delta.content for one in stream] == ["a", "b"]
    assert server.requests[0][1]["stream_options"] == {"include_usage": True}
    assert spent(limiter, "tokens") == 18
    assert standing(limiter) == IDLE


def test_an_error_inside_a_stream_of_anthropic() -> None:
    said = b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n'
    server = Server((200, said))
    limiter = roomy()
    with serving(server) as url, made(anthropic.Anthropic(base_url=url, api_key="k"), limiter, QUICK) as client:
        with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
            list(client.messages.create(model="claude", messages=ASKED, max_tokens=50, stream=True))
    assert len(server.requests) == 3
    assert standing(limiter) == IDLE
