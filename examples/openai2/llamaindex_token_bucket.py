"""LlamaIndex, a token bucket of one's own in front of `acomplete`: the first step of tutorials on rate limits.

The bucket sleeps with `time.sleep`, which stops the whole event loop, and counts requests alone, so long prompts run
into the token quota all the same. With one line in its place both quotas are kept, and the loop keeps running.
"""

import asyncio
import time

from _llamaindex import llm
from _provider import REQUESTS, TOKENS, failed, provider
from llama_index.llms.openai import OpenAI

import penstock
from penstock import Limiter

PROMPTS = [f"Summarize report {number}: " + "the sea was low and dry. " * 330 for number in range(10)]


class TokenBucket:
    """The tutorials' bucket."""

    def __init__(self, rate: float, capacity: float) -> None:
        self.rate, self.capacity, self.level, self.last = rate, capacity, capacity, time.monotonic()

    def acquire(self) -> None:
        """Wait until there is a token."""
        while True:
            now = time.monotonic()
            self.level = min(self.capacity, self.level + (now - self.last) * self.rate)
            self.last = now
            if self.level >= 1:
                self.level -= 1
                return
            time.sleep((1 - self.level) / self.rate)


async def longest_stall(done: asyncio.Event) -> float:
    """Watch for how long nothing else can run."""
    longest = 0.0
    while not done.is_set():
        began = time.monotonic()
        await asyncio.sleep(0.01)
        longest = max(longest, time.monotonic() - began)
    return longest


async def summarize_all(model: OpenAI, bucket: TokenBucket | None) -> tuple[list[object], float]:
    """Make all calls at once, behind the bucket if there is one; give the results and the longest stall."""
    done = asyncio.Event()
    watch = asyncio.ensure_future(longest_stall(done))

    async def summarize(prompt: str) -> object:
        if bucket is not None:
            bucket.acquire()
        return await model.acomplete(prompt)

    results = await asyncio.gather(*map(summarize, PROMPTS), return_exceptions=True)
    done.set()
    return results, await watch


def as_it_was() -> None:
    """Bound the requests per second, by hand."""
    with provider(refusals=True) as where:
        bucket = TokenBucket(rate=10, capacity=5)
        results, stall = asyncio.run(summarize_all(llm(where, max_retries=0, max_tokens=100), bucket))
    print(f"as it was: {failed(results)} of {len(results)} calls failed, and the loop stood still for {stall:.1f} s")


def with_one_line() -> None:
    """Bound requests and tokens at once."""
    gate = Limiter(requests=REQUESTS, tokens=TOKENS)
    with provider(refusals=False) as where:
        model = penstock.govern(llm(where, max_tokens=100), gate)  # the one line
        results, _ = asyncio.run(summarize_all(model, None))
    print(f"governed: {failed(results)} of {len(results)} calls failed")


if __name__ == "__main__":
    as_it_was()
    with_one_line()
