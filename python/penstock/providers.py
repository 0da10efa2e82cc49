"""Limiters shaped for how each provider counts and enforces: ``penstock.providers.openai(rpm=500, tpm=200_000)``.

Numbers are those of the provider's own page of limits: requests per minute (``rpm``), tokens per minute (``tpm``),
input and output tokens apart (``itpm``, ``otpm``), and per day (``rpd``, ``tpd``). Burst and window follow from what is
known of the provider; docs/providers.md has the table.

What is left out is found out. Most providers name their limits in the headers of every answer: until the first one has
come, calls leave slowly (two at once, twenty a minute), and then at what it said, which is followed up and down. Where
no answer says (Bedrock; Gemini says it when it refuses), the rate doubles while calls wait, up to the first refusal,
and then stays close to what was taken. Answers reach the limiter through what governs calls (`penstock.govern`,
`penstock.install`, transports), and through `Limiter.observe`; a limiter that hears of no answer stays slow, so with
decorators and permits alone give it numbers. A limit that was given is a ceiling: answers lower it, and never raise it
above.

Quotas are per model, so a limiter is for the calls of one model, or of models that share a quota. One that sees the
answers of two runs at the smaller limits of both.

Each function takes further arguments of `Limiter`: ``concurrency``, ``per_key``, ``name``, ``store``,
``network_jitter``, ``max_waiting``, ``on_store_failure``. They raise `TypeError` or `ValueError` for a number that
cannot be, with its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock import arguments
from penstock._core import provider_rate
from penstock.limiter import Limiter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta
    from typing import TypedDict

    from typing_extensions import Unpack

    class _More(TypedDict, total=False):
        concurrency: int | None
        per_key: Mapping[str, Any] | None
        name: str | None
        store: str
        network_jitter: float | timedelta | None
        max_waiting: int | None
        on_store_failure: str


__all__ = [
    "anthropic",
    "azure_openai",
    "bedrock",
    "cohere",
    "deepseek",
    "fireworks",
    "gemini",
    "groq",
    "litellm",
    "mistral",
    "ollama",
    "openai",
    "openrouter",
    "together",
    "vertex",
    "vllm",
]

#: What an argument counts, and per how many seconds.
_MEANINGS = {
    "rps": ("requests", 1),
    "rpm": ("requests", 60),
    "rpd": ("requests", 86_400),
    "rpmonth": ("requests", 30 * 86_400),
    "tpm": ("tokens", 60),
    "tpd": ("tokens", 86_400),
    "itpm": ("input_tokens", 60),
    "otpm": ("output_tokens", 60),
}
#: What each function has besides, and hands on to `Limiter`.
_FURTHER = ("concurrency", "per_key", "name", "store", "network_jitter", "max_waiting", "on_store_failure")


def _limiter(provider: str, more: _More, **limits: int | None) -> Limiter:
    """A limiter of the provider, with those of the limits that were given."""
    rates: dict[str, list[Any]] = {}
    for name, amount in limits.items():
        if amount is not None:
            dimension, per = _MEANINGS[name]
            rates.setdefault(dimension, []).append(provider_rate(provider, name, dimension, amount, per))
    named: dict[str, Any] = {**more, **rates}
    try:
        return Limiter(provider=provider, **named)
    except TypeError as error:
        raise arguments.unknown(provider, more, [*limits, *_FURTHER]) or error from None


def openai(
    *,
    rpm: int | None = None,
    tpm: int | None = None,
    rpd: int | None = None,
    tpd: int | None = None,
    **more: Unpack[_More],
) -> Limiter:
    """OpenAI: token buckets, refilled all the time.

    A call takes the larger of its text and its ``max_tokens`` from the tokens, and is not known to get back what it did
    not use; failed requests count. A burst of more than a second's worth may meet ``slow_down``, so requests are paced.
    """
    return _limiter("openai", more, rpm=rpm, tpm=tpm, rpd=rpd, tpd=tpd)


def azure_openai(*, rpm: int | None = None, tpm: int | None = None, **more: Unpack[_More]) -> Limiter:
    """Azure OpenAI, Foundry and GitHub Models: limits of one deployment.

    Tokens are counted in fixed minutes, as text plus ``max_tokens`` until the call is settled. Requests are also
    counted in windows of 1 or 10 seconds: until an answer says which, ``rpm`` is paced evenly, 5 % below the limit.
    """
    return _limiter("azure_openai", more, rpm=rpm, tpm=tpm)


def anthropic(
    *, rpm: int | None = None, itpm: int | None = None, otpm: int | None = None, **more: Unpack[_More]
) -> Limiter:
    """Anthropic: token buckets of requests, of input and of output tokens.

    What is read from the cache is free (but for Haiku 3.5), ``max_tokens`` reserves nothing. A sharp rise of use may
    meet the acceleration limit, which slows the limiter for a while.
    """
    return _limiter("anthropic", more, rpm=rpm, itpm=itpm, otpm=otpm)


def gemini(*, rpm: int | None = None, tpm: int | None = None, rpd: int | None = None, **more: Unpack[_More]) -> Limiter:
    """Gemini API: rolling minutes of requests and of input tokens, and requests per day until midnight Pacific.

    Tokens are input tokens: output is not limited. No answer but a refusal names a limit.
    """
    return _limiter("gemini", more, rpm=rpm, tpm=tpm, rpd=rpd)


def vertex(*, rpm: int | None = None, tpm: int | None = None, **more: Unpack[_More]) -> Limiter:
    """Vertex AI: a pool shared with others, or a quota per model and region.

    Tokens are input tokens. A refusal without details says that the pool is busy: the limiter slows, and recovers.
    """
    return _limiter("vertex", more, rpm=rpm, tpm=tpm)


def bedrock(
    *, rpm: int | None = None, tpm: int | None = None, tpd: int | None = None, **more: Unpack[_More]
) -> Limiter:
    """AWS Bedrock: limits of one model in one region.

    A call takes its input and all of ``maxTokens`` (unset: what the model can at most) until it is settled, and then
    Claude's output is multiplied. No answer names a limit.
    """
    return _limiter("bedrock", more, rpm=rpm, tpm=tpm, tpd=tpd)


def mistral(
    *, rps: int | None = None, rpm: int | None = None, tpm: int | None = None, **more: Unpack[_More]
) -> Limiter:
    """Mistral: requests per second (or in windows of ten), and tokens as they are used in a rolling minute."""
    return _limiter("mistral", more, rps=rps, rpm=rpm, tpm=tpm)


def groq(
    *,
    rpm: int | None = None,
    tpm: int | None = None,
    rpd: int | None = None,
    tpd: int | None = None,
    **more: Unpack[_More],
) -> Limiter:
    """Groq: token buckets, those of a day too. Cached tokens do not count.

    Headers name requests per day and tokens per minute; the other two are named by refusals alone.
    """
    return _limiter("groq", more, rpm=rpm, tpm=tpm, rpd=rpd, tpd=tpd)


def cohere(*, rpm: int | None = None, rpmonth: int | None = None, **more: Unpack[_More]) -> Limiter:
    """Cohere: calls per minute and endpoint; with a trial key also per month (``rpmonth``, taken as 30 days)."""
    return _limiter("cohere", more, rpm=rpm, rpmonth=rpmonth)


def together(
    *, rps: int | None = None, rpm: int | None = None, tpm: int | None = None, **more: Unpack[_More]
) -> Limiter:
    """Together: counted by the second, and moved with load."""
    return _limiter("together", more, rps=rps, rpm=rpm, tpm=tpm)


def fireworks(
    *, rpm: int | None = None, itpm: int | None = None, otpm: int | None = None, **more: Unpack[_More]
) -> Limiter:
    """Fireworks: limits that grow with use; an answer marked as over the limit slows the limiter."""
    return _limiter("fireworks", more, rpm=rpm, itpm=itpm, otpm=otpm)


def openrouter(*, rpm: int | None = None, rpd: int | None = None, **more: Unpack[_More]) -> Limiter:
    """OpenRouter: requests of free models per minute and day; of others what the provider behind it says."""
    return _limiter("openrouter", more, rpm=rpm, rpd=rpd)


def deepseek(*, rpm: int | None = None, tpm: int | None = None, **more: Unpack[_More]) -> Limiter:
    """DeepSeek: no published limits; calls queue there, and are refused all the same when it is busy."""
    return _limiter("deepseek", more, rpm=rpm, tpm=tpm)


def ollama(**more: Unpack[_More]) -> Limiter:
    """Ollama: as many calls at once as it runs, ``concurrency``: by default 1, as it does (``OLLAMA_NUM_PARALLEL``)."""
    return _limiter("ollama", {"concurrency": 1, **more})


def vllm(**more: Unpack[_More]) -> Limiter:
    """vLLM: no quota; calls beyond ``concurrency`` (by default 256, as its ``max_num_seqs``) would only wait there."""
    return _limiter("vllm", {"concurrency": 256, **more})


def litellm(*, rpm: int | None = None, tpm: int | None = None, **more: Unpack[_More]) -> Limiter:
    """A LiteLLM proxy: limits of a key, user or team in a minute that begins with its first call."""
    return _limiter("litellm", more, rpm=rpm, tpm=tpm)
