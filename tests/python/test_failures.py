"""What real exceptions of SDKs and HTTP libraries mean: each is raised by the library itself, against a local server.

With ``PENSTOCK_SDKS=1`` all of the group ``sdks`` must be installed; otherwise what is not is left out.
"""

from __future__ import annotations

import asyncio
import http.server
import importlib.util
import json
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

import penstock
from penstock.failures import verdict_of

if TYPE_CHECKING:
    from collections.abc import Iterator

MESSAGES: Any = [{"role": "user", "content": "hello"}]
SPENT = {"error": {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": None}}
SHORT = {"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}}


class Server:
    """A provider that answers whatever it is told to."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body = b""
        self.dead = False
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                if server.dead:
                    return  # the connection is closed without an answer
                self.send_response(server.status)
                for name, value in {"content-type": "application/json", **server.headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(server.body)))
                self.end_headers()
                self.wfile.write(server.body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answers(self, status: int, body: Any = b"", **headers: str) -> None:
        self.status, self.dead = status, False
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


# One call by each library, without retries of its own.


def by_openai(url: str) -> None:
    import openai

    with openai.OpenAI(base_url=url, api_key="x", max_retries=0) as client:
        client.chat.completions.create(model="m", messages=MESSAGES)


def by_openai_streaming(url: str) -> None:
    import openai

    with openai.OpenAI(base_url=url, api_key="x", max_retries=0) as client:
        for _ in client.chat.completions.create(model="m", messages=MESSAGES, stream=True):
            pass


def by_async_openai(url: str) -> None:
    import openai

    async def main() -> None:
        async with openai.AsyncOpenAI(base_url=url, api_key="x", max_retries=0) as client:
            await client.chat.completions.create(model="m", messages=MESSAGES)

    asyncio.run(main())


def by_anthropic(url: str) -> None:
    import anthropic

    with anthropic.Anthropic(base_url=url, api_key="x", max_retries=0) as client:
        client.messages.create(model="m", max_tokens=3, messages=MESSAGES)


def by_anthropic_streaming(url: str) -> None:
    import anthropic

    with anthropic.Anthropic(base_url=url, api_key="x", max_retries=0) as client:
        for _ in client.messages.create(model="m", max_tokens=3, messages=MESSAGES, stream=True):
            pass


def by_groq(url: str) -> None:
    import groq

    with groq.Groq(base_url=url, api_key="x", max_retries=0) as client:
        client.chat.completions.create(model="m", messages=MESSAGES)


def by_mistralai(url: str) -> None:
    from mistralai.client import Mistral

    with Mistral(api_key="x", server_url=url) as client:
        client.chat.complete(model="m", messages=MESSAGES)


def by_cohere(url: str) -> None:
    import cohere

    client = cohere.ClientV2(api_key="x", base_url=url)
    client.chat(model="m", messages=MESSAGES, request_options={"max_retries": 0})


def by_google_genai(url: str) -> None:
    from google import genai

    client = genai.Client(api_key="x", http_options={"base_url": url})
    client.models.generate_content(model="m", contents="hello")


def by_botocore(url: str) -> None:
    import botocore.config
    import botocore.session

    client = botocore.session.get_session().create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=botocore.config.Config(retries={"total_max_attempts": 1}),
    )
    client.converse(modelId="m", messages=[{"role": "user", "content": [{"text": "hello"}]}])


def by_httpx(url: str) -> None:
    import httpx

    httpx.post(url).raise_for_status()


def by_httpx2(url: str) -> None:
    import httpx2

    httpx2.post(url).raise_for_status()


def by_aiohttp(url: str) -> None:
    import aiohttp

    async def main() -> None:
        async with aiohttp.ClientSession() as session, session.post(url) as response:
            response.raise_for_status()

    asyncio.run(main())


def by_requests(url: str) -> None:
    import requests

    requests.post(url, timeout=10).raise_for_status()


Call = Any
CALLS: dict[str, list[Call]] = {
    "openai": [by_openai, by_openai_streaming, by_async_openai],
    "anthropic": [by_anthropic, by_anthropic_streaming],
    "groq": [by_groq],
    "mistralai": [by_mistralai],
    "cohere": [by_cohere],
    "google.genai": [by_google_genai],
    "botocore": [by_botocore],
    "httpx": [by_httpx],
    "httpx2": [by_httpx2],
    "aiohttp": [by_aiohttp],
    "requests": [by_requests],
}


def installed(library: str) -> bool:
    """Whether a library is to be tested."""
    if os.environ.get("PENSTOCK_SDKS") == "1":
        return True
    try:
        return importlib.util.find_spec(library) is not None
    except ModuleNotFoundError:  # the package around it
        return False


EVERY = [call for library, calls in CALLS.items() if installed(library) for call in calls]
#: Those whose exceptions carry what the answer said: aiohttp's has no body.
WITH_BODY = [call for call in EVERY if call is not by_aiohttp]
#: Those whose exceptions are understood by what OpenAI's answers say.
LIKE_OPENAI = [
    call
    for call in WITH_BODY
    if call not in {by_anthropic, by_anthropic_streaming, by_botocore, by_google_genai, by_cohere}
]

pytestmark = pytest.mark.filterwarnings("default")  # of the libraries' own making


def failure(call: Call, url: str) -> Exception:
    with pytest.raises(Exception) as caught:
        call(url)
    return caught.value


def verdict(error: BaseException) -> penstock.Verdict:
    understood = verdict_of(error)
    assert understood is not None, repr(error)
    return understood


@pytest.mark.parametrize("call", EVERY)
def test_a_throttle_with_its_wait(call: Call, server: Server) -> None:
    server.answers(429, SHORT, retry_after="7")
    understood = verdict(failure(call, server.url))
    assert (understood.kind, understood.wait, understood.retryable) == ("throttled", 7, True)


@pytest.mark.parametrize("call", LIKE_OPENAI)
def test_a_spent_quota(call: Call, server: Server) -> None:
    server.answers(429, SPENT, retry_after="1")
    understood = verdict(failure(call, server.url))
    assert (understood.kind, understood.retryable) == ("quota_exhausted", False)


@pytest.mark.parametrize("call", EVERY)
@pytest.mark.parametrize(
    ("status", "kind"), [(400, "fatal"), (401, "fatal"), (404, "fatal"), (500, "transient"), (503, "overloaded")]
)
def test_other_answers(call: Call, status: int, kind: str, server: Server) -> None:
    server.answers(status, {"error": {"message": "no"}})
    assert verdict(failure(call, server.url)).kind == kind


@pytest.mark.parametrize("call", EVERY)
def test_an_answer_that_is_no_json(call: Call, server: Server) -> None:
    server.answers(502, b"<html>Bad Gateway", content_type="text/html")
    assert verdict(failure(call, server.url)).kind == "transient"


@pytest.mark.parametrize("call", EVERY)
def test_no_answer(call: Call, server: Server) -> None:
    server.dead = True
    understood = verdict(failure(call, server.url))
    assert (understood.kind, understood.charged) == ("transient", "all")


@pytest.mark.parametrize("call", EVERY)
def test_nobody_listens(call: Call) -> None:
    closed = Server()
    closed.close()
    assert verdict(failure(call, closed.url)).kind == "transient"


@pytest.mark.parametrize("call", EVERY)
def test_whoever_wraps_it(call: Call, server: Server) -> None:
    class Framework(Exception):
        pass

    server.answers(429, SHORT, retry_after="7")
    error = failure(call, server.url)
    wrapped = Framework("failed")
    wrapped.__cause__ = error
    outer = Framework("failed")
    outer.__context__ = wrapped
    assert verdict(wrapped).wait == verdict(outer).wait == 7
    outer.__suppress_context__ = True
    assert verdict_of(outer) is None
    if getattr(error, "response", None) is not None and call is not by_botocore:
        carrying = Framework("failed")
        carrying.response = error.response  # type: ignore[attr-defined]
        assert verdict(carrying).wait == 7


@pytest.mark.parametrize(
    ("call", "provider"),
    [
        (by_anthropic, "anthropic"),
        (by_groq, "groq"),
        (by_mistralai, "mistral"),
        (by_cohere, "cohere"),
        (by_google_genai, "gemini"),
        (by_botocore, "bedrock"),
    ],
)
def test_whose_answer_it_is(call: Call, provider: str, server: Server) -> None:
    if call not in EVERY:
        pytest.skip("not installed here")
    server.answers(429, SHORT, retry_after="7")
    assert verdict(failure(call, server.url)).provider == provider


@pytest.mark.skipif(not installed("botocore"), reason="botocore is not installed here")
@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        (429, "ThrottlingException", "Too many tokens, please wait before trying again.", "throttled"),
        (429, "ThrottlingException", "Too many requests, please wait before trying again.", "throttled"),
        (400, "ServiceQuotaExceededException", "Too many", "quota_exhausted"),
        (400, "ValidationException", "The model is unknown", "fatal"),
        (408, "ModelTimeoutException", "It took too long", "transient"),
        (503, "ServiceUnavailableException", "Try again", "overloaded"),
    ],
)
def test_the_codes_of_bedrock(status: int, code: str, message: str, kind: str, server: Server) -> None:
    server.answers(status, {"message": message}, x_amzn_errortype=f"{code}:http://internal.amazon.com/coral/")
    understood = verdict(failure(by_botocore, server.url))
    assert (understood.kind, understood.detail) == (kind, message)


@pytest.mark.skipif(not installed("google.genai"), reason="google-genai is not installed here")
def test_the_daily_limit_of_gemini(server: Server) -> None:
    violation = {"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "quotaValue": "50"}
    details = [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "12s"},
    ]
    body = {"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED", "details": details}}
    server.answers(429, body)
    assert verdict(failure(by_google_genai, server.url)).kind == "quota_exhausted"


@pytest.mark.skipif(not installed("anthropic"), reason="anthropic is not installed here")
def test_an_error_in_the_stream_of_anthropic(server: Server) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    server.answers(200, f"event: error\ndata: {json.dumps(error)}\n\n".encode(), content_type="text/event-stream")
    understood = verdict(failure(by_anthropic_streaming, server.url))
    assert (understood.kind, understood.retryable) == ("overloaded", True)


@pytest.mark.skipif(not installed("openai"), reason="openai is not installed here")
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "busy", "type": "server_error", "code": "server_error"}, "transient"),
        ({"message": "spent", "type": "insufficient_quota", "code": "insufficient_quota"}, "quota_exhausted"),
        ({"message": "slow", "type": "requests", "code": "rate_limit_exceeded"}, "throttled"),
    ],
)
def test_an_error_in_the_stream_of_openai(error: dict[str, str], kind: str, server: Server) -> None:
    server.answers(200, f"data: {json.dumps({'error': error})}\n\n".encode(), content_type="text/event-stream")
    assert verdict(failure(by_openai_streaming, server.url)).kind == kind


# Stand-ins for what is too large to be installed for a test: LiteLLM's exceptions are OpenAI's, and look like this.


class LiteLLMError(Exception):
    def __init__(self, status_code: int, message: str, response: Any = None) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.message = f"litellm.RateLimitError: {message}"
        self.llm_provider = "openai"
        self.model = "gpt-4o"
        self.headers = None
        self.body = None
        self.response = response


class Response:
    def __init__(self, status_code: int, headers: Any, content: Any) -> None:
        self.status_code = status_code
        self.headers = headers
        self.content = content


def test_litellm() -> None:
    prose = "RateLimitError: OpenAIException - Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, "
    prose += "Used 30000, Requested 890. Please try again in 1.78s."
    understood = verdict(LiteLLMError(429, prose))
    assert (understood.kind, understood.wait, understood.dimension) == ("throttled", 1.78, "tokens")
    empty = LiteLLMError(429, prose, Response(429, {"retry-after": "3"}, b""))
    assert verdict(empty).wait == 3
    assert verdict(LiteLLMError(500, "APIConnectionError")).kind == "transient"


def test_the_exceptions_of_python() -> None:
    for error in (ConnectionResetError(), ConnectionRefusedError(), BrokenPipeError(), ConnectionAbortedError()):
        assert verdict(error).kind == "transient"


# What is no failure of a provider, and what is not what it looks like.


@pytest.mark.parametrize(
    "error",
    [
        ValueError("429 Too Many Requests, retry after 5 s"),
        KeyError("status_code"),
        json.JSONDecodeError("no", "", 0),
        asyncio.CancelledError(),
        KeyboardInterrupt(),
        OSError(28, "No space left on device"),
        FileNotFoundError(2, "gone"),
        RuntimeError(),
        penstock.AcquireTimeout("no permit", 3.0),
        penstock.QuotaExhausted("spent"),
        penstock.StoreUnavailable("away") if hasattr(penstock, "StoreUnavailable") else penstock.QueueFull("full", 1),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_no_failure_of_a_provider(error: BaseException) -> None:
    assert verdict_of(error) is None


def test_a_refusal_of_the_gate_hides_what_is_behind_it() -> None:
    try:
        try:
            raise ConnectionResetError
        except ConnectionResetError as error:
            raise penstock.AcquireTimeout("no permit") from error
    except penstock.AcquireTimeout as caught:
        assert verdict_of(caught) is None


@pytest.mark.parametrize("status", [200, 204, 99, 600, -1, 0, True, "429", 429.0, None])
def test_a_status_that_is_none(status: Any) -> None:
    error: Any = Exception("no")
    error.status_code = status
    assert verdict_of(error) is None


class Broken(Exception):
    """All of its attributes raise."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __str__(self) -> str:
        raise RuntimeError("str")


class BrokenInPart(Exception):
    """Only its status can be read."""

    status_code = 503

    @property
    def body(self) -> Any:
        raise RuntimeError("body")

    response = headers = message = details = raw_response = body

    def __str__(self) -> str:
        raise RuntimeError("str")


class Items:
    def __init__(self, items: Any) -> None:
        self._items = items

    def items(self) -> Any:
        if isinstance(self._items, Exception):
            raise self._items
        return self._items


def test_broken_exceptions_do_no_harm() -> None:
    assert verdict_of(Broken()) is None
    assert verdict(BrokenInPart()).kind == "overloaded"


@pytest.mark.parametrize(
    "headers",
    [
        *(5, "retry-after: 5", [1], {1: 2}, {"retry-after": None}, {"retry-after": ["5"]}, {b"\xff": b"\xff"}),
        *(Items(RuntimeError()), Items(5), Items([5]), Items([(1, 2, 3)]), object()),
    ],
)
@pytest.mark.parametrize("body", [{"error": object()}, [object()], {1: {2}}, b"\xff", "\ud800", 5, object()])
def test_headers_and_bodies_that_only_look_like_it(headers: Any, body: Any) -> None:
    error: Any = Exception("no")
    error.status_code, error.headers, error.body = 429, headers, body
    assert verdict(error).kind == "throttled"
    error.response = Response(429, headers, body)
    assert verdict(error).kind == "throttled"


@pytest.mark.parametrize(
    "response",
    [
        {},
        {"Error": {}, "ResponseMetadata": {}},
        {"Error": 5, "ResponseMetadata": 5},
        {"Error": {"Code": 5, "Message": 5}, "ResponseMetadata": {"HTTPStatusCode": "429"}},
    ],
)
def test_responses_that_look_like_those_of_botocore(response: Any) -> None:
    error: Any = Exception("no")
    error.response = response
    assert verdict_of(error) is None
    error.status_code = 503  # it is somebody else's then
    assert verdict(error).kind == "overloaded"
    error.response = {
        "Error": {"Code": 5, "Message": 5},
        "ResponseMetadata": {"HTTPStatusCode": 429, "HTTPHeaders": "none"},
    }
    assert verdict(error).kind == "throttled"


def test_circles_and_long_chains_of_causes_end() -> None:
    one, other = Exception(), Exception()
    one.__cause__, other.__cause__ = other, one
    assert verdict_of(one) is None
    deep: BaseException = ConnectionResetError()
    for _ in range(100_000):
        outer = Exception()
        outer.__cause__ = deep
        deep = outer
    assert verdict_of(deep) is None
