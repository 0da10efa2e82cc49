"""CPU of a call through a governed client, over that of the same call through the bare one.

    python benches/governed.py [calls per batch] [batches]

No network: the transport answers at once, with the headers and the body of a chat completion. Batches of both take
turns, and the fastest of each counts, so that what else the machine does falls out.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import httpx
import httpx2

import penstock

URL = "https://api.openai.com/v1/chat/completions"
ASKED = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "word " * 200}], "max_tokens": 100}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi " * 100}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 201, "completion_tokens": 100, "total_tokens": 301},
}
BODY = json.dumps(ANSWER).encode()
HEADERS = {
    "content-type": "application/json",
    "date": "Wed, 25 Nov 2026 15:00:00 GMT",
    "openai-processing-ms": "100",
    "x-request-id": "req_1",
    "x-ratelimit-limit-requests": "1000000000",
    "x-ratelimit-limit-tokens": "10000000000",
    "x-ratelimit-remaining-requests": "999999900",
    "x-ratelimit-remaining-tokens": "9999999000",
    "x-ratelimit-reset-requests": "6ms",
    "x-ratelimit-reset-tokens": "0s",
}


def client(library: Any, tasks: bool) -> Any:
    """A client whose transport reads nothing from a network: its answers are streams, as those of real ones are."""
    base = library.AsyncBaseTransport if tasks else library.BaseTransport
    stream = library.AsyncByteStream if tasks else library.SyncByteStream

    class Body(stream):
        def __iter__(self) -> Any:
            yield BODY

        async def __aiter__(self) -> Any:
            yield BODY

    class Answering(base):
        def handle_request(self, request: Any) -> Any:
            return library.Response(200, headers=HEADERS, stream=Body())

        async def handle_async_request(self, request: Any) -> Any:
            return library.Response(200, headers=HEADERS, stream=Body())

    return (library.AsyncClient if tasks else library.Client)(transport=Answering())


def measure(library: Any, tasks: bool, calls: int, batches: int) -> tuple[float, float]:
    """Microseconds per call, bare and governed."""
    limiter = penstock.Limiter(requests=10**9, tokens=10**10, concurrency=1_000)
    clients = [client(library, tasks), penstock.govern(client(library, tasks), limiter)]
    best = [float("inf")] * 2

    async def batch(http: Any) -> None:
        for _ in range(calls):
            await http.post(URL, json=ASKED)

    async def in_tasks() -> None:
        for _ in range(batches):
            for place, http in enumerate(clients):
                began = time.process_time()
                await batch(http)
                best[place] = min(best[place], time.process_time() - began)

    def in_threads() -> None:
        for _ in range(batches):
            for place, http in enumerate(clients):
                began = time.process_time()
                for _ in range(calls):
                    http.post(URL, json=ASKED)
                best[place] = min(best[place], time.process_time() - began)

    asyncio.run(in_tasks()) if tasks else in_threads()
    return best[0] / calls * 1e6, best[1] / calls * 1e6


def main() -> None:
    """Print a line for each library, in threads and in tasks."""
    calls, batches = (int(argument) for argument in (sys.argv[1:] + ["200", "40"][len(sys.argv) - 1 :])[:2])
    print(f"{'':16}{'bare':>9}{'governed':>10}{'more':>8}   (microseconds of CPU per call)")
    for library in (httpx, httpx2):
        for tasks in (False, True):
            bare, governed = measure(library, tasks, calls, batches)
            name = f"{library.__name__} {'tasks' if tasks else 'threads'}"
            print(f"{name:16}{bare:9.1f}{governed:10.1f}{governed - bare:8.1f}")


if __name__ == "__main__":
    main()
