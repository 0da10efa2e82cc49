"""The provider itself: sockets, time, quotas by model, and the log, around one dialect."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING

from aiohttp import web

from .dialect import Problem
from .latency import Latency, NetworkJitter
from .log import Arrival, ArrivalLog, Summary
from .openai import MOST_TOKENS, OpenAI
from .policy import NANOSECONDS, Enforcement, Policy, count, seconds

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from .dialect import Call
    from .quota import Quota

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

    It speaks OpenAI's chat completions (streamed or not, with ``stream_options.include_usage``) and embeddings. Each
    model has a quota of its own, of ``requests`` and ``tokens`` per period, counted when a request arrives and admitted
    in both or in neither. Point any SDK at ``base_url``, with any API key::

        async with FakeProvider(requests=500, tokens=200_000) as provider:
            client = AsyncOpenAI(base_url=provider.base_url, api_key="test")
            ...
        assert provider.summary().refused == 0

    Use ``async with`` on the loop you are in, or a plain ``with`` for a thread and loop of the provider's own: for
    synchronous tests, and to judge a client whose loop is busy. A provider runs once.

    A request costs ``request_cost(body)`` tokens at admission and is not credited back. Its answer has as many tokens
    as the header ``x-fake-answer-tokens`` says, or else ``answer_tokens``, or else the request's ``max_tokens``, or
    else 16; never more than ``max_tokens`` (then ``finish_reason`` is ``length``). A token is four characters.
    A request with tools is answered with a call of the first, and in text once it brings a result; one with a JSON
    schema, with the plainest JSON that fits.

    Args:
        requests: Requests per period and model; None for no such quota.
        tokens: Tokens per period and model; None for no such quota.
        per: The period in seconds.
        enforcement: ``"token_bucket"`` (OpenAI, Groq, Anthropic), ``"fixed_window"`` (Azure's tokens),
            ``"rolling_window"`` (Mistral, Gemini), or ``"sub_window"`` (Azure: requests in fixed windows of
            ``sub_window`` seconds, which must divide ``per``, and tokens in fixed windows of ``per``).
        burst: Capacity of the token bucket; by default the full amount. A number if there is one quota, else a mapping
            such as ``{"requests": 10, "tokens": 20_000}``.
        sub_window: Seconds; Azure has 1 or 10.
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
        per: float = 60.0,
        enforcement: Enforcement = "token_bucket",
        burst: int | Mapping[str, int] | None = None,
        sub_window: float = 1.0,
        phase: float = 0.0,
        failed_count: bool = True,
        latency: float = 0.05,
        latency_jitter: float = 0.2,
        network_jitter: float = 0.0,
        stream_chunks: int = 16,
        answer_tokens: int | None = None,
        keys: Collection[str] | None = None,
        models: Collection[str] | None = None,
        seed: int = 0,
        port: int = 0,
    ) -> None:
        self._policy = Policy(
            requests=requests,
            tokens=tokens,
            per=per,
            enforcement=enforcement,
            burst=burst,
            sub_window=sub_window,
            phase=phase,
            failed_count=failed_count,
        )
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(f"seed must be a whole number, not {seed!r}")
        self._latency = Latency(seconds("latency", latency), seconds("latency_jitter", latency_jitter), seed)
        self._network = NetworkJitter(seconds("network_jitter", network_jitter), seed)
        self._chunks = count("stream_chunks", stream_chunks)
        self._dialect = OpenAI(
            keys=_names("keys", keys),
            models=_names("models", models),
            answer_tokens=None if answer_tokens is None else count("answer_tokens", answer_tokens, maximum=MOST_TOKENS),
        )
        self._port = count("port", port, minimum=0, maximum=65535)

        self._quotas: dict[str, Quota] = {}
        self._log = ArrivalLog()
        self._started: int | None = None
        self._runner: web.ServerRunner | None = None
        self._thread: _Thread | None = None

    def __repr__(self) -> str:
        where = "not started" if self._started is None else self.base_url
        return f"<FakeProvider {where}: {self._policy}; {self.summary()}>"

    @property
    def base_url(self) -> str:
        """What to give an SDK as its base URL, such as ``http://127.0.0.1:38113/v1``."""
        if self._started is None:
            raise RuntimeError("the provider has no address before it runs: use it in a `with` or `async with` block")
        return f"http://{HOST}:{self._port}{self._dialect.base_path}"

    @property
    def log(self) -> list[Arrival]:
        """Every arrival, in the order in which they were counted. May be cleared; the summary stays whole."""
        return self._log.arrivals

    def summary(self) -> Summary:
        """Totals so far."""
        available: dict[str, int] = {}
        first = self._log.first
        if first is not None and self._quotas:
            # What one model's fresh quota can admit in this time, for each of the models.
            for dimension, amount in self._policy.new_quota().available(first, self._log.last).items():
                available[dimension] = amount * len(self._quotas)
        return self._log.summary(available)

    def optimum(self, costs: Iterable[int]) -> float:
        """Compute the least seconds in which requests of these token costs, all to one model, can be admitted.

        Counted from the first admission to the last, in the order given, each at the first moment that the enforcement
        allows. Raises ``ValueError`` if one is too large to be ever admitted.
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
        thread = _Thread(self)
        thread.begin()
        self._thread = thread
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.end()

    async def _open(self) -> None:
        if self._started is not None:
            raise RuntimeError("a FakeProvider runs once: make another")
        server = web.Server(
            self._handle,
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
        self._started = time.monotonic_ns()

    async def _close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            await asyncio.sleep(0)  # those that were cut off now write their last line in the log

    # Answering

    def _now(self) -> int:
        return time.monotonic_ns() - (self._started or 0)

    def _quota(self, model: str) -> Quota:
        quota = self._quotas.get(model)
        if quota is None:
            quota = self._quotas[model] = self._policy.new_quota()
        return quota

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.content.read()  # not request.read(), which stops at a megabyte
        delay = self._network.draw()
        if delay:
            await asyncio.sleep(delay)
        now = self._now()
        arrival = Arrival(
            time=now / NANOSECONDS,
            endpoint=request.path,
            key=self._dialect.key(request.headers),
            attempt=_attempt(request.headers),
        )
        self._log.arrive(arrival, now)
        exchange = _Exchange(number=self._log.sent, arrived=now)
        try:
            call = self._dialect.read(request.method, request.path, request.headers, body)
        except Problem as problem:
            if problem.model is not None:
                arrival.model = problem.model
                if problem.counts:
                    self._quota(problem.model).fail(now)
            return self._fail(arrival, exchange, problem)

        arrival.model, arrival.stream = call.model, call.stream
        arrival.tokens = call.cost.get("tokens", 0)
        quota = self._quota(call.model)
        refusal = quota.admit(call.cost, now)
        exchange.quota_headers = self._dialect.quota_headers(quota.levels(now))
        if refusal is not None:
            self._log.refuse(arrival, refusal.dimension, refusal.wait)
            return self._fail(arrival, exchange, self._dialect.refuse(call, refusal))

        self._log.admit(arrival)
        try:
            if call.stream:
                response = await self._stream(request, arrival, exchange, call)
            else:
                response = await self._answer(arrival, exchange, call)
        except (asyncio.CancelledError, ConnectionError):
            self._log.finish(arrival, self._now(), disconnected=True)
            raise
        self._log.finish(arrival, self._now())
        return response

    def _headers(self, exchange: _Exchange, content_type: str) -> dict[str, str]:
        milliseconds = (self._now() - exchange.arrived) // 1_000_000
        headers = self._dialect.headers(exchange.number, milliseconds)
        headers.update(exchange.quota_headers)
        headers["content-type"] = content_type
        return headers

    def _fail(self, arrival: Arrival, exchange: _Exchange, problem: Problem) -> web.Response:
        headers = self._headers(exchange, "application/json")
        headers.update(problem.headers)
        arrival.status = problem.status
        self._log.finish(arrival, self._now())
        return web.Response(status=problem.status, body=problem.body, headers=headers)

    async def _answer(self, arrival: Arrival, exchange: _Exchange, call: Call) -> web.Response:
        latency = self._latency.draw()
        if latency:
            await asyncio.sleep(latency)
        body = call.answer(exchange.number, int(time.time()))
        arrival.status, arrival.tokens_in, arrival.tokens_out = 200, call.tokens_in, call.tokens_out
        return web.Response(body=body, headers=self._headers(exchange, "application/json"))

    async def _stream(
        self, request: web.BaseRequest, arrival: Arrival, exchange: _Exchange, call: Call
    ) -> web.StreamResponse:
        events = call.events(exchange.number, int(time.time()), self._chunks)
        interval = self._latency.draw() / len(events)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        response: web.StreamResponse | None = None
        for index, event in enumerate(events):
            # Due times are counted from the beginning, so that late wakes do not add up.
            due = begun + interval * (index + 1) - loop.time()
            if due > 0:
                await asyncio.sleep(due)
            if response is None:
                response = web.StreamResponse(headers=self._headers(exchange, "text/event-stream; charset=utf-8"))
                response.headers["cache-control"] = "no-cache"
                await response.prepare(request)
                arrival.status, arrival.tokens_in = 200, call.tokens_in
            await response.write(event)
            arrival.tokens_out = call.tokens_out * (index + 1) // len(events)
        if response is None:
            raise RuntimeError(f"a stream of no events: {call!r}")
        await response.write_eof()
        return response


class _Exchange:
    """What the headers of one answer tell."""

    __slots__ = ("arrived", "number", "quota_headers")

    def __init__(self, number: int, arrived: int) -> None:
        self.number = number
        self.arrived = arrived
        self.quota_headers: dict[str, str] = {}


class _Thread:
    """A thread with a loop of its own, in which a provider runs."""

    def __init__(self, provider: FakeProvider) -> None:
        self._provider = provider
        self._ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=self._run, name="penstock-fake-provider", daemon=True)

    def begin(self) -> None:
        """Return when the provider listens, or raise why it does not."""
        self._thread.start()
        self._ready.result()

    def end(self) -> None:
        """Return when all is closed."""
        loop, stop = self._ready.result()
        loop.call_soon_threadsafe(stop.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        stop = asyncio.Event()
        try:
            await self._provider.__aenter__()
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that began this one
            self._ready.set_exception(error)
            return
        self._ready.set_result((asyncio.get_running_loop(), stop))
        try:
            await stop.wait()
        finally:
            await self._provider.__aexit__(None, None, None)


def _attempt(headers: Mapping[str, str]) -> int | None:
    """How many retries there were before, as the SDKs made with Stainless say."""
    text = headers.get("x-stainless-retry-count", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _names(name: str, value: Collection[str] | None) -> frozenset[str] | None:
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Collection) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{name} must be a collection of strings, not {value!r}")
    if not value:
        raise ValueError(f"{name} must not be empty: None allows any")
    return frozenset(value)
