"""What the demo asks for: several hundred chat completions of heavy-tailed sizes."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.testing.provider import request_cost
from penstock.testing.provider.openai import ANSWER_TOKENS_HEADER
from penstock.testing.provider.tokens import filler

if TYPE_CHECKING:
    from openai import AsyncOpenAI

#: Of the log-normal sizes: the largest of some hundred calls are 20 times the usual one.
_SIGMA = 1.2


@dataclass(frozen=True)
class Call:
    """One call, before it is made."""

    body: dict[str, Any]
    """What is sent."""
    answer_tokens: int
    """How long the answer will be: at most ``max_tokens``, and usually less, as in life."""
    tokens: int
    """What the provider counts it as, when it arrives."""

    async def send(self, client: AsyncOpenAI) -> str:
        """Make the call with the SDK, streamed or not, and give the whole text of the answer."""
        headers = {ANSWER_TOKENS_HEADER: str(self.answer_tokens)}
        response = await client.chat.completions.create(**self.body, extra_headers=headers)
        if not self.body["stream"]:
            return response.choices[0].message.content or ""
        pieces = []
        async for chunk in response:
            pieces += [choice.delta.content or "" for choice in chunk.choices]
        return "".join(pieces)


def calls(count: int, *, usual: int, largest: int, streamed: float, seed: int) -> list[Call]:
    """Make up the calls; the same for the same arguments.

    Args:
        count: how many.
        usual: the median of ``max_tokens``.
        largest: what no call is above, in tokens.
        streamed: the share of calls that are streamed, 0 to 1.
        seed: of sizes and order.
    """
    source = random.Random(f"calls {seed}")  # noqa: S311  repeatable, not secret

    def one() -> Call:
        most = min(largest, max(1, round(source.lognormvariate(0, _SIGMA) * usual)))
        prompt = min(largest, max(1, round(source.lognormvariate(0, _SIGMA) * usual / 4)))
        stream = source.random() < streamed
        body: dict[str, Any] = {
            "model": "gpt-4o-mini",
            "messages": [{"role": "user", "content": filler(0, prompt)}],
            "max_tokens": most,
            "stream": stream,
        }
        if stream:
            body["stream_options"] = {"include_usage": True}
        return Call(body, answer_tokens=max(1, round(most * source.uniform(0.2, 1.0))), tokens=request_cost(body))

    return [one() for _ in range(count)]
