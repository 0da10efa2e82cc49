"""The provider itself: how it is set up, how it runs, and what it has to tell."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .answer import MOST_TOKENS, Script
from .dialect import DialectName, Settings
from .dialects import Dialects, enforcement_of
from .exchange import Desk, clock
from .fault import Fault, FaultKind, Faults
from .latency import Latency, NetworkJitter
from .policy import Enforcement, Policy, count, seconds
from .quotas import Quotas
from .thread import Thread

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from .log import Arrival, Summary

__all__ = ["FakeProvider"]

HOST = "127.0.0.1"
# A burst of connections waits here, where a shorter queue would drop some of them and delay those by a second.
BACKLOG = 4096
# A connection that the server closes for idleness just as a request is sent looks like a failure to the client.
KEEPALIVE_SECONDS = 3600.0
# Whatever is still under way when the block ends is cut off.
SHUTDOWN_SECONDS = 0.1


class FakeProvider:
    """A strict LLM provider on loopback: real HTTP, quotas, refusals, streams and headers, and a log to judge by.

    Point any SDK at it, with any API key. It speaks OpenAI's chat completions, responses, embeddings and images,
    Azure's the same, Anthropic's messages, Gemini's content, Bedrock's Converse and Cohere's chat, streamed or not,
    with tools and structured output; the SDKs of Groq, Mistral, Together and Fireworks speak OpenAI's. A request is
    answered in the words of the provider whose path it is to, so one ``FakeProvider`` serves all SDKs at once:
    ``base_url`` is for those of its ``dialect``, ``origin`` for others. Lists of models, files, batches and counts of
    tokens are free. Each model has a quota of its own, counted when a request arrives and admitted in all dimensions or
    in none::

        async with FakeProvider(requests=500, tokens=200_000) as provider:
            client = AsyncOpenAI(base_url=provider.base_url, api_key="test")
            ...
        assert provider.summary().refused == 0

    Use ``async with`` on the loop you are in, or a plain ``with`` for a thread and loop of the provider's own: for
    synchronous tests, and to judge a client whose loop is busy. A provider runs once.

    A request costs ``request_cost(body)`` tokens at admission and is not credited back (Azure and Bedrock count their
    own ways, and settle to what was used). Its answer is what the request's headers say (``x-fake-answer: text``,
    ``x-fake-tool-call: name {"json": 1}``, ``x-fake-answer-tokens: 9``) or what ``answer`` gives; or else something
    valid: a call of a tool if tools are offered and none was called since the user's last message (or the request
    insists), JSON that follows the schema that was asked for, or a text of ``answer_tokens``, or the request's
    ``max_tokens``, or 16 tokens. No text is longer than ``max_tokens`` (then ``finish_reason`` is ``length``). A token
    is four characters.

    What goes wrong on demand is a ``Fault``: given in ``faults``, injected while it runs, or named in the header
    ``x-fake-fault`` of one request, as in ``throttled; retry_after=3600``.

    Args:
        requests: Requests per period and model; None for no such quota.
        tokens: Tokens per period and model; None for no such quota.
        input_tokens: Tokens of prompts per period and model; None for no such quota.
        output_tokens: Tokens of answers per period and model, counted as they are made: a request is refused while the
            quota is in debt. None for no such quota.
        daily: Quotas of a day besides, such as ``{"requests": 200}``.
        quotas: For some models, by name or pattern such as ``gpt-4o*``: arguments of their quotas in place of these
            (``requests``, ``tokens``, ``input_tokens``, ``output_tokens``, ``daily``, ``per``, ``enforcement``,
            ``burst``).
        dialect: Whose words ``base_url`` is for, and answers to unknown paths are in.
        per: The period in seconds.
        enforcement: ``"token_bucket"`` (OpenAI, Groq, Anthropic), ``"fixed_window"`` (Azure's tokens),
            ``"rolling_window"`` (Mistral, Gemini), or ``"sub_window"`` (Azure: requests in fixed windows of
            ``sub_window`` seconds, which must divide ``per``, and tokens in fixed windows of ``per``). By default that
            of the dialect's provider.
        burst: Capacity of the token bucket; by default the full amount. A number if there is one quota, else a mapping
            such as ``{"requests": 10, "tokens": 20_000}``.
        sub_window: Seconds; Azure has 1 or 10. By default a sixth of the period.
        phase: How many seconds of its first window are over when the provider starts (fixed and sub-windows).
        failed_count: Whether requests that are refused for their tokens, too large or malformed use the request quota
            too, as at OpenAI, as far as there is some to use. A request that is refused for want of request quota takes
            nothing. False: failures are free.
        latency: Median seconds from admission to the end of an answer; refusals and errors are answered at once. A
            stream's chunks are spread over it evenly.
        latency_jitter: Sigma of the log-normal distribution of latencies; 0 makes all alike.
        network_jitter: Each request is counted a uniformly distributed 0 to ``network_jitter`` seconds after it reached
            the socket, since loopback has no jitter of its own.
        stream_chunks: The most pieces that a streamed answer comes in.
        answer_tokens: Tokens in an answer, where the request's header does not say.
        keys: The API keys that are accepted; None for any.
        models: The models that exist; None for any.
        answer: Decides on answers: called with a ``Prompt``, on the provider's loop; gives a text, a number of tokens,
            a mapping (as JSON), one or more ``ToolCall``, an ``Answer``, or None for what it would have been.
        faults: What goes wrong.
        seed: Of the latencies. Together with the order of arrival it fixes everything but time.
        port: 0 for any free one.

    Raises:
        TypeError: an argument is not of the kind described.
        ValueError: an argument is out of range; the message names it, its value and what is allowed.
    """

    def __init__(
        self,
        *,
        requests: int | None = None,
        tokens: int | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        daily: Mapping[str, int] | None = None,
        quotas: Mapping[str, Mapping[str, Any]] | None = None,
        dialect: DialectName = "openai",
        per: float = 60.0,
        enforcement: Enforcement | None = None,
        burst: int | Mapping[str, int] | None = None,
        sub_window: float | None = None,
        phase: float = 0.0,
        failed_count: bool = True,
        latency: float = 0.05,
        latency_jitter: float = 0.2,
        network_jitter: float = 0.0,
        stream_chunks: int = 16,
        answer_tokens: int | None = None,
        keys: Collection[str] | None = None,
        models: Collection[str] | None = None,
        answer: Script | None = None,
        faults: Collection[Fault] = (),
        seed: int = 0,
        port: int = 0,
    ) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(f"seed must be a whole number, not {seed!r}")
        if answer is not None and not callable(answer):
            raise TypeError(f"answer must be callable with a Prompt, not {answer!r}")
        settings = Settings(
            keys=_names("keys", keys),
            models=_names("models", models),
            answer_tokens=None if answer_tokens is None else count("answer_tokens", answer_tokens, maximum=MOST_TOKENS),
            script=answer,
        )
        dialects = Dialects(dialect, settings)
        amounts: dict[str, Any] = {
            "requests": requests,
            "tokens": tokens,
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "daily": daily,
            "per": per,
            "enforcement": enforcement_of(dialect) if enforcement is None else enforcement,
            "burst": burst,
        }
        rest: dict[str, Any] = {"phase": phase, "failed_count": failed_count, "sub_window": sub_window}
        self._policy = Policy(**amounts, **rest)
        by_model = {
            model: Policy(**{**amounts, "burst": None, **_overrides(model, given)}, **rest)
            for model, given in ({} if quotas is None else quotas).items()
        }
        self._desk = Desk(
            dialects=dialects,
            quotas=Quotas(self._policy, by_model),
            faults=Faults(faults),
            latency=Latency(seconds("latency", latency), seconds("latency_jitter", latency_jitter), seed),
            network=NetworkJitter(seconds("network_jitter", network_jitter), seed),
            chunks=count("stream_chunks", stream_chunks),
        )
        self._port = count("port", port, minimum=0, maximum=65535)
        self._running = False
        self._runner: web.ServerRunner | None = None
        self._thread: Thread | None = None

    def __repr__(self) -> str:
        where = self.base_url if self._running else "not started"
        return f"<FakeProvider {where}: {self._policy}; {self.summary()}>"

    @property
    def base_url(self) -> str:
        """What to give an SDK of the dialect as its base URL, such as ``http://127.0.0.1:38113/v1`` for OpenAI's."""
        return self.origin + self._desk.dialects.first.base_path

    @property
    def origin(self) -> str:
        """The address without a path, such as ``http://127.0.0.1:38113``: what SDKs of other dialects are given."""
        if not self._running:
            raise RuntimeError("the provider has no address before it runs: use it in a `with` or `async with` block")
        return f"http://{HOST}:{self._port}"

    @property
    def log(self) -> list[Arrival]:
        """Every arrival, in the order in which they were counted. May be cleared; the summary stays whole."""
        return self._desk.log.arrivals

    def summary(self) -> Summary:
        """Totals so far."""
        log = self._desk.log
        # What one model's fresh quota can admit in this time, for each of the models.
        return log.summary({} if log.first is None else self._desk.quotas.available(log.first, log.last))

    def inject(self, fault: Fault) -> None:
        """Have something go wrong from now on, in addition to what does."""
        self._desk.faults.add(fault)

    def heal(self) -> None:
        """Have nothing go wrong any more."""
        self._desk.faults.clear()

    @contextlib.contextmanager
    def failing(self, kind: FaultKind, **settings: Any) -> Iterator[Fault]:
        """Have something go wrong for the length of a ``with`` block; settings are those of ``Fault``."""
        fault = Fault(kind, **settings)
        self.inject(fault)
        try:
            yield fault
        finally:
            self._desk.faults.remove(fault)

    def optimum(self, costs: Iterable[int | Mapping[str, int]]) -> float:
        """Compute the least seconds in which requests of these costs, all to one model, can be admitted.

        A cost is a number of tokens, or a number for each dimension (that of ``output_tokens`` is counted when the
        request is admitted). Counted from the first admission to the last, in the order given, each at the first moment
        that the enforcement allows. Raises ``ValueError`` if one is too large to be ever admitted.
        """
        return self._policy.optimum(costs)

    # Running

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    def __enter__(self) -> Self:
        thread = Thread(self)
        thread.begin()
        self._thread = thread
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.end()

    async def _open(self) -> None:
        if self._running:
            raise RuntimeError("a FakeProvider runs once: make another")
        server = web.Server(
            self._desk.handle,
            handler_cancellation=True,  # so that a client's going away is noticed at once
            auto_decompress=False,  # a compressed request is answered 400, as any other that is not JSON
            access_log=None,
            keepalive_timeout=KEEPALIVE_SECONDS,
        )
        runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_SECONDS)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, self._port, backlog=BACKLOG).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._port = runner.addresses[0][1]
        self._runner = runner
        self._desk.started = clock()
        self._running = True

    async def _close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            await asyncio.sleep(0)  # those that were cut off now write their last line in the log


def _overrides(model: str, given: object) -> Mapping[str, Any]:
    """Check what is said of one model's quota."""
    allowed = ("requests", "tokens", "input_tokens", "output_tokens", "daily", "per", "enforcement", "burst")
    if not isinstance(given, Mapping):
        raise TypeError(f"quotas of {model!r} must be a mapping such as {{'requests': 60}}, not {given!r}")
    unknown = [name for name in given if name not in allowed]
    if unknown:
        raise ValueError(f"quotas of {model!r} name {unknown[0]!r}; there is {', '.join(allowed)}")
    return given


def _names(name: str, value: Collection[str] | None) -> frozenset[str] | None:
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Collection) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{name} must be a collection of strings, not {value!r}")
    if not value:
        raise ValueError(f"{name} must not be empty: None allows any")
    return frozenset(value)
