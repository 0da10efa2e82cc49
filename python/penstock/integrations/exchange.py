"""One governed call, from its request to the end of its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from penstock import _core, scoping
from penstock._core import Permit
from penstock.errors import PenstockError
from penstock.failures import verdict_of
from penstock.integrations import errors
from penstock.integrations.gate import carried, left
from penstock.integrations.streams import Meter

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock._core import Acquire, Attempts, Call, Memory, Sent, UsageReader, Verdict
    from penstock.integrations.gate import Gatekeeper
    from penstock.integrations.wire import Headers, Wire
    from penstock.limiter import Limiter

#: How much longer a request is remembered for SDKs that say themselves that they send it again: none waits longer.
_STACKED_SECONDS = 60.0
#: How long a request is remembered that no other attempt can cure, when the provider states no time.
_INCURABLE_SECONDS = 30.0
#: Longer bodies of failures are not kept.
_MOST_BYTES = 1 << 20

#: Statuses from here on send a client elsewhere, and from there on are failures.
_REDIRECTS, _FAILURES = 300, 400
#: What a server answers that does not know a member of the body.
_NOT_UNDERSTOOD = frozenset({400, 422})

_SHOULD_RETRY = b"x-should-retry"

#: What the SDKs call themselves in ``user-agent``: at an address that nobody knows, it speaks the API of the SDK.
_AGENTS = {"azureopenai": "azure_openai", "openai/python": "openai", "anthropic": "anthropic", "groq/python": "groq"}


class Outcome(NamedTuple):
    """What a request that was given up ended with: an answer, or the error in place of one.

    Attributes:
        closed: until when it is the answer to the same request, by the process's clock.
        status: of the answer.
        headers: of the answer.
        body: of the answer, as it came.
        kind: the class of the error; None where there was an answer.
        arguments: what the error is made of again.
    """

    closed: float
    status: int = 0
    headers: Headers = []  # noqa: RUF012  nobody changes it
    body: bytes = b""
    kind: type[Exception] | None = None
    arguments: tuple[object, ...] = ()


async def exchange(keeper: Gatekeeper, wire: Wire, request: Any) -> Any:
    """Make a call: wait for its permit, send it, try it again if that can help, settle what it used.

    Free calls, and those that no limiter is for, are sent and nothing else.
    """
    sent = wire.sent(request)
    chosen = keeper.chosen(sent.host, sent.port)
    if chosen is None or sent.free:
        return await wire.send(request)
    body = await wire.body(request) if sent.json else None
    call = sent.read(wire.form(request) if body is None else body)
    limiter = chosen.pick(call.model)
    if limiter is None:
        return await wire.send(request)
    return await Exchange(chosen, wire, limiter, sent, request, body, call).run()


class Exchange:
    """The state of a governed call."""

    __slots__ = (
        *(
            "_hash",
            "asking",
            "attempts",
            "before",
            "body",
            "call",
            "delay",
            "keeper",
            "label",
            "limiter",
            "memory",
            "permit",
        ),
        "provider",
        *("replayable", "request", "sent", "streams", "wire"),
    )

    def __init__(  # noqa: PLR0917  it is made in one place
        self, keeper: Gatekeeper, wire: Wire, limiter: Limiter, sent: Sent, request: Any, body: bytes | None, call: Call
    ) -> None:
        self.keeper = keeper
        self.wire = wire
        self.limiter = limiter
        self.sent = sent
        self.request = request
        self.body = body
        self.call = call
        self.streams = call.stream
        self.provider = whose(sent, limiter)
        self.memory: Memory = limiter.given_up
        self._hash: int | None = None
        self.replayable = body is not None or wire.replayable(request)
        self.permit: Permit | None = None
        #: What the call's numbers are kept under.
        self.label: str | None = None
        self.attempts: Attempts | None = None
        #: Whether the provider is asked to report the usage of a stream, though the caller did not ask.
        self.asking = False
        self.delay = 0.0
        #: Makes the error that the attempt before ended with.
        self.before: Callable[[], Exception] | None = None

    async def run(self) -> Any:
        """The answer, or an exception; in the end either is one that the SDK does not retry, if it can be told."""
        outcome = self._recall()
        if outcome is not None:
            return self._again(outcome)
        request = self._asking_for_usage() if self.streams else self.request
        try:
            while True:
                try:
                    if left() is None and self.wire.crowded():
                        await self.wire.turn()
                    waiter = self._ask()
                    if waiter is not None:
                        await self._wait(waiter)
                    if self.attempts is None:
                        self.attempts = self.keeper.retry.start(self.limiter)
                    answer = await self._attempt(request)
                finally:
                    self._release()
                if answer is not None:
                    return answer
                await self.wire.pause(self.delay)
                if not self.asking:
                    request = self.request
        finally:
            # A stream that is on its way took both over.
            if self.attempts is not None:
                self.attempts.end()

    def _asking_for_usage(self) -> Any:
        """The request to send: one that asks for the usage of its stream, if that is wanted and possible."""
        keeper, sent = self.keeper, self.sent
        if not (self.body and keeper.stream_usage) or sent.host in keeper.mute:
            return self.request
        body = _core.ask_for_usage(self.provider, sent.path, self.body)
        if body is None:
            return self.request
        self.asking = True
        return self.wire.with_body(self.request, body)

    # The permit.

    def _ask(self) -> Acquire | None:
        """Take the permit; give what to wait on, if there is none yet."""
        inherited = scoping.inherited()
        self.label = inherited.label
        limiter, call = self.limiter, self.call
        permit: Any = None if left() is None else carried(limiter)
        if permit is not None:
            cost = _core.cost_of(limiter, call, self.provider)
            permit.settle(cost.tokens, cost.input_tokens, cost.output_tokens)
        else:
            key, priority, timeout = inherited.key, inherited.priority or 0, inherited.timeout
            try:
                permit = limiter.ask_for(call, self.provider, key, priority, timeout)
            except PenstockError as error:
                self._not_admitted(error)
            if permit.__class__ is not Permit:
                waiter: Acquire = permit
                return waiter
        self.permit = permit
        return None

    async def _wait(self, waiter: Acquire) -> None:
        try:
            self.permit = await self.wire.wait(waiter)
        except PenstockError as error:
            self._not_admitted(error)

    def _not_admitted(self, error: PenstockError) -> NoReturn:
        self._remember(Outcome(0.0, kind=type(error), arguments=errors.arguments(error)))
        raise errors.within_sdks(error) from (None if self.before is None else self.before())

    def _release(self) -> None:
        permit, self.permit = self.permit, None
        if permit is not None:
            if self.label is not None:
                self.limiter.count_label(self.label, permit)
            permit.release()

    def hand_over(self) -> tuple[Permit | None, Attempts | None]:
        """The permit and the place in the retry budget, to be given back by whoever reads the answer."""
        held = self.permit, self.attempts
        self.permit = self.attempts = None
        return held

    # One attempt: an answer to give, or None when another attempt is to be made after `delay`.

    async def _attempt(self, request: Any) -> Any:
        wire = self.wire
        reader: UsageReader | None = None
        meter: Meter | None = None
        try:
            response = await wire.send(request)
            status, headers = wire.told(response)
            if _REDIRECTS <= status < _FAILURES:
                return self._moved(response, await wire.drain(response))
            if status < _REDIRECTS:
                reader = _core.begin_answer(self.limiter, self.call, self.provider, status, headers, self.permit)
            if reader is None or (reader.json and not self.streams):
                raw = await wire.drain(response)
            else:
                # A look at the first bytes: a stream that begins with an error can still be tried again.
                meter = Meter(self, reader, headers)
                raw = await wire.opened(response, meter)
        except Exception as error:  # noqa: BLE001  what an HTTP library raises is told by its shape
            return self._unanswered(error)
        if reader is None:
            return self._failed(response, status, headers, raw)
        if meter is None:
            return self._whole(reader, response, status, headers, raw)
        if meter.strips:
            wire.strip(response)
            headers = wire.told(response)[1]
        wrong = meter.verdict()
        if wrong is not None:
            meter.drop()
            await wire.closed(response)
            return self._refused(wrong, Outcome(0.0, status, headers, raw), response)
        self._forget()
        meter.take_over()
        return response

    def _moved(self, response: Any, raw: bytes) -> Any:
        """What is elsewhere has cost nothing yet but the request."""
        if self.permit is not None:
            self.permit.settle(0, 0, 0)
        return self.wire.whole(response, raw)

    def _whole(self, reader: UsageReader, response: Any, status: int, headers: Headers, raw: bytes) -> Any:
        """An answer in one piece: its usage is read, and settles the permit."""
        plain = self._plain(headers, raw) if reader.encoding else raw
        if plain is not None:
            reader.feed(plain)
        wrong = reader.verdict()
        if wrong is not None:
            return self._refused(wrong, Outcome(0.0, status, headers, raw), response)
        self._forget()
        if self.permit is not None:
            _core.settle_answer(self.limiter, self.call, reader, self.permit, True, plain is None)
        return self.wire.whole(response, raw)

    def _plain(self, headers: Headers, raw: bytes) -> bytes | None:
        """A body without its compression; None if nobody here can read it."""
        decode = self.wire.decoder(headers)
        try:
            return None if decode is None else decode(raw)
        except Exception:  # noqa: BLE001  it is not what it says; whoever reads it will hear of it
            return None

    def _failed(self, response: Any, status: int, headers: Headers, raw: bytes) -> Any:
        body = self.wire.decoded(headers, raw)
        verdict = _core.read_answer(status, headers, body, self.provider)
        if self.asking and status in _NOT_UNDERSTOOD and b"stream_options" in body:
            # A server that does not know the option: the call goes once more, as the caller made it.
            self.keeper.mute.add(self.sent.host)
            self.asking = False
            self.delay = 0.0
            if self.permit is not None and verdict.charged != "all":
                self.permit.settle(0, 0, 0)
            return None
        return self._refused(verdict, Outcome(0.0, status, headers, raw), response)

    def _forget(self) -> None:
        if self.body is not None and len(self.memory):
            self.memory.forget(self._hashed())

    def _refused(self, verdict: Verdict, outcome: Outcome, response: Any) -> Any:
        def error() -> Exception:
            return self.wire.status_error(outcome, self.request)

        if self._tried_again(verdict, error):
            self.before = error
            return None
        self._give_up(verdict, outcome)
        return self._answer(outcome, response)

    def _unanswered(self, error: Exception) -> None:
        if isinstance(error, PenstockError):
            raise error
        if not errors.was_sent(error) and self.permit is not None:
            self.permit.abandon()
        verdict = verdict_of(error)
        if self._tried_again(verdict, lambda: error):
            self.before = lambda: error
            return
        if verdict is not None:
            self._give_up(verdict, Outcome(0.0, kind=type(error), arguments=(str(error),)))
        raise errors.unanswered(error, self.sent.agent, self.request)

    def _tried_again(self, verdict: Verdict | None, error: Callable[[], Exception]) -> bool:
        """Whether another attempt is to be made."""
        assert self.attempts is not None  # noqa: S101
        delay, _ = self.keeper.retry.weigh(self.attempts, verdict, error, self.limiter, self.permit)
        if delay is None or not self.replayable:
            return False
        self.delay = delay
        return True

    # What was given up.

    def _give_up(self, verdict: Verdict, outcome: Outcome) -> None:
        made = 1 if self.attempts is None else max(1, self.attempts.told()[0])
        seconds = verdict.wait or self.keeper.retry.step(made)
        if verdict.wait is None and verdict.kind in {"oversize", "quota_exhausted"}:
            seconds = max(seconds, _INCURABLE_SECONDS)
        self._remember(outcome._replace(closed=_core.clock_now() + seconds), seconds)

    def _hashed(self) -> int:
        if self._hash is None:
            self._hash = self.sent.hash(self.body or b"")
        return self._hash

    def _remember(self, outcome: Outcome, seconds: float = 0.0) -> None:
        # What was not read cannot be told from another request.
        if self.body is not None and len(outcome.body) <= _MOST_BYTES:
            self.memory.remember(self._hashed(), seconds + _STACKED_SECONDS, outcome)

    def _recall(self) -> Outcome | None:
        if self.body is None or not len(self.memory):
            return None
        outcome: Outcome | None = self.memory.recall(self._hashed())
        if outcome is None or not (self.sent.retried or _core.clock_now() < outcome.closed):
            return None
        return outcome

    def _again(self, outcome: Outcome) -> Any:
        """What the same request ended with before."""
        kind = outcome.kind
        if kind is None:
            return self._answer(outcome, None)
        if issubclass(kind, PenstockError):
            raise errors.within_sdks(kind(*outcome.arguments))
        error = self.wire.error(kind, str(outcome.arguments[0]), self.request)
        raise errors.unanswered(error, self.sent.agent, self.request)

    def _answer(self, outcome: Outcome, response: Any) -> Any:
        headers = [pair for pair in outcome.headers if pair[0].lower() != _SHOULD_RETRY]
        headers.append((_SHOULD_RETRY, b"false"))
        return self.wire.answer(outcome.status, headers, outcome.body, response)


def whose(sent: Sent, limiter: Limiter) -> str:
    """The provider that a request goes to: by its address; else by its limiter; else by the SDK that makes it."""
    provider = sent.provider
    if provider == "unknown":
        provider = getattr(limiter, "provider", None) or provider
    if provider == "unknown" and sent.agent:
        agent = sent.agent.lower()
        provider = next((name for mark, name in _AGENTS.items() if mark in agent), provider)
    return provider
