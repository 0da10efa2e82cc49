"""OpenAI's dialect: chat completions, responses and embeddings, and what is free.

What a request costs at admission is ``max(max_tokens, estimate)``, as OpenAI documents it ("the maximum of
``max_tokens`` and the estimated number of tokens based on the character count"); the estimate is a quarter of the
prompt's characters, rounded up, and at least 1. Prompts given as token arrays count exactly.
"""

# ruff: noqa: D102 - the methods are documented in Dialect

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import headers as wire
from ..answer import ANSWER_TOKENS_HEADER, MOST_TOKENS
from ..dialect import Dialect, Problem
from .body import error, parse, problem
from .chat import Chat, read_chat
from .embeddings import read_embeddings
from .errors import fault_problem, overloaded_chat_event, overloaded_response_event
from .free import read_free
from .images import read_images
from .responses import Response, read_response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..dialect import Call, DialectName, Incoming
    from ..fault import Fault
    from ..prompt import JSONObject, Prompt
    from ..quota import Level, Refusal

__all__ = ["ANSWER_TOKENS_HEADER", "MOST_TOKENS", "OpenAI", "request_cost"]

ORGANIZATION = "org-penstocktesting000000000"

CHAT = "/chat/completions"
EMBEDDINGS = "/embeddings"
RESPONSES = "/responses"
IMAGES = "/images/generations"


def request_cost(body: JSONObject) -> int:
    """Count the tokens that a request with this JSON body is charged at admission.

    Chat completions: the larger of ``max_completion_tokens`` (or ``max_tokens``) and the estimate from the characters
    of the messages' texts, tool calls and ``tools``. Embeddings: the sum of the inputs. Raises ``ValueError`` for a
    body that the provider would answer with 400.

    >>> request_cost({"model": "m", "messages": [{"role": "user", "content": "x" * 400}], "max_tokens": 50})
    100
    """
    try:
        if "messages" not in body and "input" in body:
            return read_embeddings(body).cost["tokens"]
        return OpenAI().cost(*read_chat(body, CHAT, {}, "openai"))
    except Problem as wrong:
        raise ValueError(f"the provider would refuse this body: {wrong}") from None


class OpenAI(Dialect):
    """The dialect, for callers with any of the accepted keys (None: any key at all)."""

    name: DialectName = "openai"
    base_path = "/v1"

    def claims(self, path: str, headers: Mapping[str, str]) -> bool:  # noqa: ARG002
        return path.startswith(("/v1/", "/openai/v1/"))

    def key(self, request: Incoming) -> str | None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        return key.strip() or None if scheme.lower() == "bearer" else None

    def read(self, request: Incoming) -> Call:
        path, deployment = self.route(request.path)
        generates = path in (CHAT, EMBEDDINGS, IMAGES) or (path == RESPONSES and request.method == "POST")
        if generates and request.method != "POST":
            message = f"Not allowed to {request.method} on {request.path} (HINT: perhaps you meant to POST)"
            raise problem(405, message, counts=False)
        free = None if generates else read_free(request, path, self.settings.models)
        if free is None and not generates:
            raise problem(404, f"Invalid URL ({request.method} {request.path})", counts=False)
        self._authenticate(self.key(request))
        return free if free is not None else self._generate(request, path, deployment)

    def _generate(self, request: Incoming, path: str, deployment: str | None) -> Call:
        body = parse(request.body)
        if deployment is not None:
            body = {**body, "model": deployment}
        self._check_model(body)
        if path == EMBEDDINGS:
            return read_embeddings(body)
        if path == IMAGES:
            return read_images(body)
        read = read_response if path == RESPONSES else read_chat
        prompt, tokens_in = read(body, request.path, request.headers, self.name)
        kind = Response if path == RESPONSES else Chat
        return kind(prompt, self.decide(prompt), tokens_in, self.cost(prompt, tokens_in))

    def route(self, path: str) -> tuple[str, str | None]:
        """Split a path: what is asked for, and the model if the path has it. Groq's begin with ``/openai``."""
        return path.removeprefix("/openai").removeprefix("/v1"), None

    def cost(self, prompt: Prompt, tokens_in: int) -> int:
        """Count what a request takes of the token quota when it is admitted."""
        return max(prompt.max_tokens or 0, tokens_in)

    def _authenticate(self, key: str | None) -> None:
        keys = self.settings.keys
        if key is None:
            raise problem(401, "You didn't provide an API key.", counts=False)
        if keys is not None and key not in keys:
            raise problem(401, f"Incorrect API key provided: {key}.", code="invalid_api_key", counts=False)

    def _check_model(self, body: JSONObject) -> None:
        model, models = body.get("model"), self.settings.models
        if isinstance(model, str) and models is not None and model not in models:
            message = f"The model `{model}` does not exist or you do not have access to it."
            raise problem(404, message, code="model_not_found", counts=False, request=body)

    def headers(self, number: int, milliseconds: int) -> dict[str, str]:
        return {
            "openai-organization": ORGANIZATION,
            "openai-processing-ms": str(milliseconds),
            "openai-version": "2020-10-01",
            "x-request-id": f"req_{number:032x}",
        }

    def quota_headers(self, levels: Mapping[str, Level], now: float) -> dict[str, str]:  # noqa: ARG002
        return wire.quota_headers(levels)

    def refuse(self, call: Call, refusal: Refusal) -> Problem:
        message = wire.refusal_message(call.model, ORGANIZATION, refusal)
        body = error(message, kind=refusal.dimension, code="rate_limit_exceeded")
        headers = {} if refusal.wait is None else wire.retry_headers(refusal.wait)
        return Problem(429, body, headers, model=call.model)

    def fault(self, fault: Fault, model: str) -> Problem:
        return fault_problem(fault, model, ORGANIZATION)

    def overloaded_event(self, call: Call) -> bytes:
        return overloaded_response_event() if isinstance(call, Response) else overloaded_chat_event()

    def bad_wish(self, message: str, model: str) -> Problem:
        return problem(400, message, request={"model": model})
