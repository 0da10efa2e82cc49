"""What the tests of governing share: a client of each library, in threads and in tasks, before a made-up provider."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest
from loops import lasting

import penstock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

URL = "https://api.openai.com/v1/chat/completions"

#: Every client there is: the library, and whether calls wait in tasks.
CLIENTS = [
    pytest.param((library, tasks), id=f"{library.__name__}-{'tasks' if tasks else 'threads'}")
    for library in (httpx, httpx2)
    for tasks in (False, True)
]


def body(text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **more}


def usage(sent: int = 11, received: int = 7) -> dict[str, int]:
    return {"prompt_tokens": sent, "completion_tokens": received, "total_tokens": sent + received}


def answer(**more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    return {"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage(), **more}


def chunk(text: str | None = None, **more: Any) -> dict[str, Any]:
    choices = [] if text is None else [{"index": 0, "delta": {"content": text}, "finish_reason": None}]
    return {"id": "x", "object": "chat.completion.chunk", "choices": choices, **more}


def events(*data: Any, done: bool = True) -> list[bytes]:
    """Server-sent events, a piece each."""
    pieces = [b"data: " + json.dumps(one).encode() + b"\n\n" for one in data]
    return [*pieces, b"data: [DONE]\n\n"] if done else pieces


def streamed(library: Any, tasks: bool, pieces: list[Any], **headers: str) -> Any:
    """An answer that comes in pieces; an exception among them is raised in its place."""

    def each() -> Iterator[bytes]:
        for piece in pieces:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    async def aeach() -> AsyncIterator[bytes]:
        for piece in each():
            await asyncio.sleep(0)
            yield piece

    headers.setdefault("content-type", "text/event-stream")
    return library.Response(200, headers=headers, content=aeach() if tasks else each())


def roomy(**more: Any) -> penstock.Limiter:
    """A limiter that holds nothing back, and of which can be told what was charged."""
    return penstock.Limiter(requests=lasting(10**6), tokens=lasting(10**9), **more)


class Client:
    """A governed client of one library, whose provider is a function of the request."""

    def __init__(
        self, kind: tuple[Any, bool], provider: Callable[[Any], Any], limiter: Any = None, **options: Any
    ) -> None:
        self.library, self.tasks = kind
        self.requests: list[Any] = []
        self.limiter = roomy() if limiter is None else limiter

        def handle(request: Any) -> Any:
            self.requests.append(request)
            result = provider(request)
            if isinstance(result, BaseException):
                raise result
            return result

        async def ahandle(request: Any) -> Any:
            await request.aread()
            return handle(request)

        mock = self.library.MockTransport(ahandle if self.tasks else handle)
        make = self.library.AsyncClient if self.tasks else self.library.Client
        self.http = penstock.govern(make(transport=mock, timeout=5.0), self.limiter, **options)

    @property
    def sent(self) -> int:
        """How many requests came to the provider."""
        return len(self.requests)

    def post(self, url: str = URL, *, headers: dict[str, str] | None = None, json: Any = None) -> Any:
        json = body() if json is None else json
        if not self.tasks:
            return self.http.post(url, json=json, headers=headers)
        return asyncio.run(self.http.post(url, json=json, headers=headers))

    def get(self, url: str) -> Any:
        return asyncio.run(self.http.get(url)) if self.tasks else self.http.get(url)

    def stream(self, read: Callable[[list[bytes]], bool] = lambda _: True, *, json: Any = None) -> list[bytes]:
        """Read a stream as long as ``read`` says, then close it. Gives what came."""
        json = body(stream=True) if json is None else json
        got: list[bytes] = []

        def threads() -> None:
            with self.http.stream("POST", URL, json=json) as response:
                for piece in response.iter_raw():
                    got.append(piece)
                    if not read(got):
                        break

        async def tasks() -> None:
            async with self.http.stream("POST", URL, json=json) as response:
                async for piece in response.aiter_raw():
                    got.append(piece)
                    if not read(got):
                        break

        asyncio.run(tasks()) if self.tasks else threads()
        return got
