"""Azure OpenAI's dialect: OpenAI's bodies, under paths with a deployment, with quotas and headers of its own.

A request costs the tokens of its prompt and ``max_tokens`` for each choice, and is settled to what was used when it is
done. Requests are counted in sub-windows (10 s of a minute), tokens in fixed windows. Headers give bare seconds, the
limit of requests for each renewal period; and a refusal for want of tokens says to retry after 1 s, whatever is true.
"""

# ruff: noqa: D102 - the methods are documented in Dialect

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .dialect import Problem, encode
from .openai import OpenAI
from .policy import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .dialect import Call, Incoming
    from .fault import Fault
    from .prompt import Prompt
    from .quota import Level, Refusal

__all__ = ["Azure"]

DEPLOYMENTS = "/openai/deployments/"


class Azure(OpenAI):
    """The dialect, for callers with any of the accepted keys (None: any key at all)."""

    name = "azure"
    base_path = ""
    settles = True

    def claims(self, path: str, headers: Mapping[str, str]) -> bool:
        return path.startswith((DEPLOYMENTS, "/openai/responses", "/openai/models", "/openai/files")) or (
            path.startswith("/openai/") and "api-key" in headers
        )

    def key(self, request: Incoming) -> str | None:
        return request.headers.get("api-key") or super().key(request)

    def route(self, path: str) -> tuple[str, str | None]:
        """Split a path: what is asked for, and the deployment if the path has it."""
        if path.startswith(DEPLOYMENTS):
            deployment, _, rest = path.removeprefix(DEPLOYMENTS).partition("/")
            return f"/{rest}", deployment
        return path.removeprefix("/openai").removeprefix("/v1"), None

    def cost(self, prompt: Prompt, tokens_in: int) -> int:
        choices = prompt.body.get("n") or 1
        return tokens_in + (prompt.max_tokens or 0) * choices

    def headers(self, number: int, milliseconds: int) -> dict[str, str]:
        return {
            "apim-request-id": f"00000000-0000-4000-8000-{number:012x}",
            "x-envoy-upstream-service-time": str(milliseconds),
            "x-ms-region": "Sweden Central",
            "x-request-id": f"00000000-0000-4000-8000-{number:012x}",
        }

    def quota_headers(self, levels: Mapping[str, Level], now: float) -> dict[str, str]:  # noqa: ARG002
        headers = {}
        for dimension in ("requests", "tokens"):
            level = levels.get(dimension)
            if level is None:
                continue
            shown = level.part or level
            headers[f"x-ratelimit-limit-{dimension}"] = str(shown.limit)
            headers[f"x-ratelimit-remaining-{dimension}"] = str(shown.remaining)
            headers[f"x-ratelimit-renewalperiod-{dimension}"] = f"{shown.per / NANOSECONDS:g}"
            headers[f"x-ratelimit-reset-{dimension}"] = str(-(-shown.reset // NANOSECONDS))
        return headers

    def refuse(self, call: Call, refusal: Refusal) -> Problem:
        if refusal.dimension == "requests":
            wait = -(-(refusal.wait or 0) // NANOSECONDS)
            return _throttled(call.model, "requests", wait, {})
        # As recorded: nothing left, nothing to wait for, and a second to retry after. None of it is true.
        lies = {"retry-after-ms": "0", "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "0"}
        return _throttled(call.model, "tokens", 1, lies)

    def fault(self, fault: Fault, model: str) -> Problem:
        if fault.kind == "throttled":
            exact, seconds = fault.retry_after, None
            extra = {}
            if exact is not None:
                seconds, extra = math.ceil(exact), {"retry-after-ms": str(math.ceil(exact * 1000))}
            told = _throttled(model, "requests", seconds, extra)
            headers = {**told.headers, **fault.headers}
            return Problem(fault.status or told.status, told.body, headers, counts=False, model=model)
        return super().fault(fault, model)


def _throttled(model: str, what: str, seconds: int | None, extra: Mapping[str, str]) -> Problem:
    kind = "token rate limit" if what == "tokens" else "call rate limit"
    message = (
        f"Requests to the ChatCompletions_Create Operation under Azure OpenAI API have exceeded the {kind} of your "
        f"current pricing tier."
    )
    headers = {"x-ratelimit-type": what.capitalize(), **extra}
    if seconds is not None:
        message += f" Please retry after {seconds} second{'' if seconds == 1 else 's'}."
        headers["retry-after"] = str(seconds)
    return Problem(429, encode({"error": {"code": "429", "message": message}}), headers, model=model)
