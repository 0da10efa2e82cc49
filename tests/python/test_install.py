"""`penstock.install`: a whole process, by host; undone without a trace."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from typing import Any

import httpx
import httpx2
import openai
import pytest
from governed import URL, answer, body, roomy
from loops import IDLE, spent, standing

import penstock
from penstock.testing import FakeProvider

BOTH = pytest.mark.parametrize("library", [httpx, httpx2])
SENDS = [
    (library, kind, vars(kind)["send"]) for library in (httpx, httpx2) for kind in (library.Client, library.AsyncClient)
]


@pytest.fixture(autouse=True)
def _without_a_trace() -> Any:
    finders = list(sys.meta_path)
    yield
    assert sys.meta_path == finders
    for _, kind, send in SENDS:
        assert vars(kind)["send"] is send


def client(library: Any, seen: list[str] | None = None) -> Any:
    def provider(request: Any) -> Any:
        if seen is not None:
            seen.append(str(request.url))
        return library.Response(200, json=answer())

    return library.Client(transport=library.MockTransport(provider))


@BOTH
def test_calls_to_providers_are_governed_and_others_are_not(library: Any) -> None:
    limiter = roomy()
    early = client(library)
    bare = early._transport
    with penstock.install(limiter):
        late = client(library)
        for http in (early, late):
            http.post(URL, json=body())
            http.post("https://example.com/v1/chat/completions", json=body())
    assert spent(limiter) == 2
    assert early._transport is bare
    early.post(URL, json=body())
    late.post(URL, json=body())
    assert spent(limiter) == 2
    assert standing(limiter) == IDLE


@BOTH
def test_tasks_too(library: Any) -> None:
    limiter = roomy()

    async def main() -> None:
        async def provider(request: Any) -> Any:
            return library.Response(200, json=answer())

        async with library.AsyncClient(transport=library.MockTransport(provider)) as http:
            await asyncio.gather(*(http.post(URL, json=body()) for _ in range(5)))

    with penstock.install(limiter):
        asyncio.run(main())
    assert spent(limiter) == 5


@BOTH
def test_hosts_that_are_named(library: Any) -> None:
    limiter = roomy()
    http = client(library)
    names = ["llm.internal", "*.example.com", "http://127.0.0.1:8000/v1", "https://usual.test:443"]
    with penstock.install(limiter, hosts=names):
        for url, governed in [
            ("https://llm.internal/v1/chat/completions", True),
            ("http://llm.internal:9000/v1/chat/completions", True),
            ("https://a.b.example.com/v1/chat/completions", True),
            ("https://example.com/v1/chat/completions", False),
            ("http://127.0.0.1:8000/v1/chat/completions", True),
            ("http://127.0.0.1:8001/v1/chat/completions", False),
            ("https://usual.test/v1/chat/completions", True),
            ("https://api.anthropic.com/v1/messages", True),
        ]:
            before = spent(limiter)
            http.post(url, json=body(max_tokens=5))
            assert spent(limiter) - before == governed, url


@BOTH
def test_of_several_the_latest_that_names_the_host(library: Any) -> None:
    outer, inner = roomy(), roomy()
    http = client(library)
    first = penstock.install(outer)
    second = penstock.install(inner, hosts=["llm.internal"])
    http.post(URL, json=body())
    http.post("https://llm.internal/v1/chat/completions", json=body())
    assert (spent(outer), spent(inner)) == (0, 2)
    second.uninstall()
    second.uninstall()
    http.post(URL, json=body())
    http.post("https://llm.internal/v1/chat/completions", json=body())
    assert (spent(outer), spent(inner)) == (1, 2)
    third = penstock.install(inner)
    first.uninstall()
    http.post(URL, json=body())
    assert (spent(outer), spent(inner)) == (1, 3)
    third.uninstall()


@BOTH
def test_what_is_governed_stays_with_its_limiter(library: Any) -> None:
    own, whole = roomy(), roomy()
    http = penstock.govern(client(library), own)
    made = library.Client(transport=penstock.transport(own, transport=client(library)._transport))
    with penstock.install(whole):
        http.post(URL, json=body())
        made.post(URL, json=body())
        assert (spent(own), spent(whole)) == (2, 0)
        penstock.ungovern(http)
        http.post(URL, json=body())
        assert (spent(own), spent(whole)) == (2, 1)
        penstock.govern(http, own)
        http.post(URL, json=body())
        assert (spent(own), spent(whole)) == (3, 1)
    http.post(URL, json=body())
    assert (spent(own), spent(whole)) == (4, 1)


@BOTH
def test_a_transport_inside_of_another_governs_once(library: Any) -> None:
    class Outer(library.BaseTransport):  # type: ignore[misc, name-defined]
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def handle_request(self, request: Any) -> Any:
            return self.inner.handle_request(request)

    inner, whole = roomy(), roomy()
    http = library.Client(transport=Outer(penstock.transport(inner, transport=client(library)._transport)))
    with penstock.install(whole):
        http.post(URL, json=body())
    assert spent(inner) + spent(whole) == 1


@BOTH
def test_whoever_patches_after_us_keeps_what_they_have(library: Any) -> None:
    limiter = roomy()
    original = library.Client.send
    installation = penstock.install(limiter)
    ours = library.Client.send
    calls = []

    def theirs(self: Any, request: Any, **kwargs: Any) -> Any:
        calls.append(request)
        return ours(self, request, **kwargs)

    library.Client.send = theirs
    http = client(library)
    http.post(URL, json=body())
    installation.uninstall()
    assert library.Client.send is theirs
    http.post(URL, json=body())
    assert (len(calls), spent(limiter)) == (2, 1)
    library.Client.send = original


def test_arguments_that_cannot_be_are_named() -> None:
    limiter = roomy()
    with pytest.raises(TypeError, match="hosts must be a list of host names, or None, not 'api.openai.com'"):
        penstock.install(limiter, hosts="api.openai.com")
    with pytest.raises(TypeError, match="hosts must be host names, not 5"):
        penstock.install(limiter, hosts=[5])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="hosts must be host names such as"):
        penstock.install(limiter, hosts=["a b"])
    with pytest.raises(TypeError, match="limiter must be a Limiter"):
        penstock.install(None)  # type: ignore[arg-type]


def test_threads_that_meet_a_client_at_once() -> None:
    limiter = roomy()
    http = client(httpx)
    start = threading.Barrier(8)

    def call() -> None:
        start.wait()
        for _ in range(5):
            http.post(URL, json=body())

    with penstock.install(limiter):
        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert spent(limiter) == 40
    assert standing(limiter) == IDLE


def test_a_stream_outlives_the_installation() -> None:
    limiter = roomy()
    http = httpx.Client(
        transport=httpx.MockTransport(
            lambda _: httpx.Response(
                200, headers={"content-type": "text/event-stream"}, content=iter([b"data: 1\n\n", b"data: [DONE]\n\n"])
            )
        )
    )
    with penstock.install(limiter):
        response = http.send(http.build_request("POST", URL, json=body(stream=True)), stream=True)
    assert standing(limiter) == (1, 0)
    assert response.read() == b"data: 1\n\ndata: [DONE]\n\n"
    assert standing(limiter) == IDLE


LATER = """
    import sys
    import penstock

    limiter = penstock.Limiter(requests=1_000)
    with penstock.install(limiter):
        assert "httpx" not in sys.modules and "httpx2" not in sys.modules
        import {name}

        answer = {name}.MockTransport(lambda request: {name}.Response(200, json={{}}))
        {name}.Client(transport=answer).post("https://api.openai.com/v1/embeddings", json={{"input": "x"}})
    assert limiter.stats().granted == 1, limiter
    {name}.Client(transport=answer).post("https://api.openai.com/v1/embeddings", json={{"input": "x"}})
    assert limiter.stats().granted == 1, limiter
    assert not hasattr({name}.Client.send, "__penstock_original__")
"""


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_a_library_that_is_imported_later(name: str) -> None:
    script = textwrap.dedent(LATER).format(name=name)
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=60)


def test_sdks_need_nothing() -> None:
    limiter = roomy()
    with FakeProvider(requests=1_000, tokens=100_000) as provider:
        host = provider.base_url
        with penstock.install(limiter, hosts=[host]), openai.OpenAI(base_url=host, api_key="k") as sdk:
            sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}], max_tokens=5)
            assert list(sdk.models.list()) is not None
        assert spent(limiter) == 1
        assert provider.summary().admitted == 1
