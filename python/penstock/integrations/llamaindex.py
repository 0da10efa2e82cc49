"""LlamaIndex: LLMs and embeddings, those of `Settings`, and whatever contains them.

A model that speaks through an SDK is governed in its HTTP clients, where every call passes. LlamaIndex retries once
more around the SDK, with the same ``max_retries`` (one embedding makes 110 requests to a failing server); so that is 0
while a model is governed, and ``reuse_client`` is true, since a client for each call could not be governed.

LlamaIndex makes a model anew from its fields when it is copied or unpickled, and its clients are lost. What survives is
the field ``rate_limiter``: the `RateLimiter` there governs the model that it finds itself in, wherever that is.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any
from weakref import ref

from penstock import governing
from penstock.integrations import texts, walking
from penstock.integrations.gate import Gatekeeper, carry
from penstock.scoping import inherited

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from penstock._core import Permit
    from penstock.limiter import Limiter
    from penstock.retry import Retry

#: What is changed in a model while it is governed, to what.
_SETTINGS = {"max_retries": 0, "reuse_client": True}
#: Where LlamaIndex's own methods have what they are about to send, when they ask the rate limiter.
_SENT = ("messages", "args", "kwargs", "query", "text", "texts", "cur_batch", "img_file_path")
#: How many frames there are at most between a model's method and one of its methods that it calls.
_NEAR = 16


class RateLimiter:
    """For the field ``rate_limiter`` of LLMs and embeddings: also for those without httpx, and in worker processes.

    It governs the model that it finds itself in, at its first call, as `penstock.govern` does, and again wherever a
    copy of the model goes: in a worker of ``IngestionPipeline.run(num_workers=...)``, say, where it finds its limiter
    again by name and store. Only a model without an HTTP client is charged here: by an estimate, since LlamaIndex
    passes none, and without a bound on concurrency, since it does not say when a call is over.

    Args:
        limiter: a limiter, or a mapping from model names or globs to limiters, as in `penstock.govern`.
        retry: how failed requests are tried again; not those of a model without an HTTP client.
        stream_usage: as in `penstock.govern`.
        tokens: what a call of a model without an HTTP client costs: a number, or a function of the model and of what it
            is about to send; by default estimated from the latter, and from the model's ``max_tokens``.
    """

    def __init__(
        self,
        limiter: Limiter | Mapping[str, Limiter],
        *,
        retry: Retry | None = governing.THREE_ATTEMPTS,
        stream_usage: bool = True,
        tokens: int | Callable[[Any, dict[str, Any]], int] | None = None,
    ) -> None:
        self.gatekeeper = Gatekeeper(limiter, retry, stream_usage)
        self.tokens = tokens
        #: What the governed model had in place of this, and of the settings that were changed.
        self.before: dict[str, Any] | None = None
        self.model: ref[Any] | None = None
        self.http = False
        _register()

    def acquire(self, num_tokens: int = 0) -> None:
        """Wait until one call may leave."""
        model, sent, inside = _caller()
        if not self._is_governed(model) and not inside:
            limiter, terms = self._terms(model, sent, num_tokens)
            if limiter is not None:
                _leave(limiter, limiter.acquire(**terms))

    def async_acquire(self, num_tokens: int = 0) -> Awaitable[None]:
        """The twin of `acquire` for tasks."""
        model, sent, inside = _caller()
        return self._wait(model, sent, num_tokens, inside)

    async def _wait(self, model: Any, sent: dict[str, Any], num_tokens: int, inside: bool) -> None:
        if not self._is_governed(model) and not inside:
            limiter, terms = self._terms(model, sent, num_tokens)
            if limiter is not None:
                _leave(limiter, await limiter.aacquire(**terms))

    def _is_governed(self, model: Any) -> bool:
        """Whether the model's calls pass a gate of their own, where they are charged."""
        if model is None:
            return False
        if self.model is None or self.model() is not model:
            return _take(model, self)
        return self.http

    def _terms(self, model: Any, sent: dict[str, Any], num_tokens: int) -> tuple[Limiter | None, dict[str, Any]]:
        """The limiter of a call, and on what terms it is asked for a permit."""
        tokens = num_tokens
        if callable(self.tokens):
            tokens = self.tokens(model, sent)
        elif self.tokens is not None:
            tokens = self.tokens
        elif not tokens:
            tokens = texts.tokens_of(*sent.values()) + (getattr(model, "max_tokens", None) or 0)
        name = getattr(model, "model", None) or getattr(model, "model_name", None)
        terms: dict[str, Any] = {"tokens": tokens}
        scope = inherited()
        terms |= {
            name: getattr(scope, name) for name in ("key", "priority", "timeout") if getattr(scope, name) is not None
        }
        return self.gatekeeper.pick(name if isinstance(name, str) else None), terms

    def __copy__(self) -> RateLimiter:
        return _bound(self.gatekeeper, self.tokens, self.before)

    def __deepcopy__(self, _memo: object) -> RateLimiter:
        return _bound(self.gatekeeper, self.tokens, self.before)

    def __reduce__(self) -> tuple[Any, ...]:
        return _bound, (self.gatekeeper, self.tokens, self.before)

    def __repr__(self) -> str:
        return f"RateLimiter({self.gatekeeper.limiter!r})"


def _bound(gatekeeper: Gatekeeper, tokens: Any, before: dict[str, Any] | None) -> RateLimiter:
    """One that belongs to a model, or to a copy of it that has not called yet."""
    made = RateLimiter.__new__(RateLimiter)
    made.gatekeeper, made.tokens, made.before = gatekeeper, tokens, before
    made.model, made.http = None, False
    _register()
    return made


def _register() -> None:
    """Make `RateLimiter` one of LlamaIndex's own, where it has them (0.14)."""
    module = sys.modules.get("llama_index.core.rate_limiter")
    if module is not None:
        module.BaseRateLimiter.register(RateLimiter)


def _caller() -> tuple[Any, dict[str, Any], bool]:
    """The model whose method asks, what it is about to send, and whether it asks inside another of its methods.

    The arguments say none of it. A model of one's own chats by completing, say, and would be charged for both.
    """
    frame = sys._getframe(2)  # noqa: SLF001
    names = frame.f_locals
    model = names.get("_self", names.get("self"))
    if not _is_model(model):
        model = None
    inside = False
    outer = frame.f_back
    for _ in range(_NEAR):
        if inside or outer is None:
            break
        inside = outer.f_code.co_name.startswith("wrapped_") and outer.f_locals.get("_self") is model is not None
        outer = outer.f_back
    return model, {name: names[name] for name in _SENT if name in names}, inside


def _leave(limiter: Limiter, permit: Permit) -> None:
    """Give the slot back at once: nobody says when the call is over. What `install` put there charges it no more."""
    permit.release()
    if _installed():
        carry(limiter, permit)


def _installed() -> bool:
    process = sys.modules.get("penstock.integrations.process")
    return process is not None and bool(process._installed)  # noqa: SLF001


def govern(obj: Any, gatekeeper: Gatekeeper) -> bool:
    """Govern every LLM and embedding in ``obj``; False if there is none."""
    models = _models(obj)
    for model in models:
        _restore(model)
        _take(model, _bound(gatekeeper, None, None))
    return bool(models)


def ungovern(obj: Any) -> bool:
    """Undo `govern` on every LLM and embedding in ``obj``."""
    models = _models(obj)
    for model in models:
        _restore(model)
    return bool(models)


def _take(model: Any, limiter: RateLimiter) -> bool:
    """Govern a model, with a `RateLimiter` of its own in it. Gives whether that is done in its HTTP clients."""
    own = _bound(limiter.gatekeeper, limiter.tokens, limiter.before)
    before = {name: getattr(model, name) for name in _SETTINGS if hasattr(model, name)}
    _change(model, {name: value for name, value in _SETTINGS.items() if name in before and name != "max_retries"})
    for name in ("_get_client", "_get_aclient"):  # they are made with the first call otherwise
        make = getattr(model, name, None)
        if make is not None:
            make()
    for client in walking.clients(model):
        own.http |= walking.govern(client, own.gatekeeper)
    if own.http and "max_retries" in before:
        _change(model, {"max_retries": 0})
    if own.before is None:  # a copy of a governed model has been told what was before
        existing = getattr(model, "rate_limiter", None)
        own.before = {**before, "rate_limiter": None if isinstance(existing, RateLimiter) else existing}
    own.model = ref(model)
    _change(model, {"rate_limiter": own})
    return own.http


def _restore(model: Any) -> None:
    """Make a model what it was before; harmless on one that is not governed."""
    own = getattr(model, "rate_limiter", None)
    if not isinstance(own, RateLimiter):
        return
    for client in walking.clients(model):
        walking.ungovern(client)
    _change(model, own.before or {"rate_limiter": None})


def _change(model: Any, fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        setattr(model, name, value)


def _is_model(thing: Any) -> bool:
    return any(
        kind.__name__ in ("BaseLLM", "BaseEmbedding") and kind.__module__.startswith("llama_index.")
        for kind in type(thing).__mro__
    ) and not hasattr(thing, "llm")  # a StructuredLLM calls the one that it holds


def _models(obj: Any) -> list[Any]:
    if type(obj).__name__ == "_Settings":
        return _of_settings(obj)
    return list(walking.find(obj, ("llama_index",), _is_model))


def _of_settings(settings: Any) -> list[Any]:
    """The models of `Settings`: those that were set, or else its defaults."""
    models = [model for model in (settings._llm, settings._embed_model) if model is not None]  # noqa: SLF001
    return [model for model in models or [settings.llm, settings.embed_model] if _is_model(model)]
