"""The compiled core of Penstock. Everything public in it is exported by `penstock` itself.

This file is written by hand; ``python -m mypy.stubtest penstock._core`` holds it against the compiled module, and
``tests/python/test_stubs.py`` holds its first lines against what ``help()`` shows.
"""

from collections.abc import Awaitable, Generator, Iterable, Mapping, Sequence
from contextvars import ContextVar
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal, Protocol, TypeAlias, final, type_check_only

from typing_extensions import Self, disjoint_base

__version__: str

__all__ = [
    "Acquire",
    "Attempts",
    "Budget",
    "Call",
    "Cost",
    "Limiter",
    "Memory",
    "Permit",
    "Rate",
    "RetryBudget",
    "RetryPolicy",
    "Scope",
    "Sent",
    "UsageFilter",
    "UsageReader",
    "Verdict",
    "Waiter",
    "__version__",
    "after_fork",
    "ask_for_usage",
    "begin_answer",
    "check_pause",
    "clock_advance",
    "clock_freeze",
    "clock_frozen",
    "clock_now",
    "clock_thaw",
    "cost_of",
    "estimate_tokens",
    "hash_request",
    "heard",
    "is_free",
    "look",
    "next_order",
    "provider_of",
    "provider_rate",
    "read_answer",
    "read_call",
    "retire",
    "settle_answer",
]

# A limit of one dimension: an amount per minute, a rate, or a list or tuple of these; None is no limit.
_Limit: TypeAlias = float | Rate | Sequence[float | Rate] | None
_Key: TypeAlias = str | int | None
_Seconds: TypeAlias = float | timedelta
_Text: TypeAlias = str | bytes
_Dimension: TypeAlias = Literal["requests", "tokens", "input_tokens", "output_tokens"]

# Headers, with several values of one name where a library keeps them apart.
@type_check_only
class _Headers(Protocol):
    def items(self) -> Iterable[tuple[Any, Any]]: ...

@type_check_only
class _Lock(Protocol):
    def release(self) -> object: ...

@final
class Rate:
    """An amount per period of one dimension: a token bucket, and a rolling window that guards it.

    The bucket holds ``burst`` and is refilled at ``amount / per``, which paces calls. The window makes the limit hold
    whatever the server counts by: in any window of ``per`` seconds, plus the limiter's ``network_jitter``, no more
    than ``amount`` leaves. Against a server that counts by token bucket, by fixed or by rolling windows that means no
    refusals, at a utilisation of ``per / (per + network_jitter)``; a token bucket alone is refused 1.5 to 5 % of the
    time by the latter two.

    A call that costs more than ``burst``, but not more than ``amount``, leaves once the bucket is full, and puts it
    into debt. One that costs more than ``amount`` never can: `CostExceedsLimit`.

    Rates are immutable, compare by value, can be pickled and be used as keys.

    Args:
        amount: how much may leave in a period: a whole number from 1 to 10**15 (a float without fraction counts).
        per: the period, in seconds or as a timedelta: from a millisecond to 366 days.
        burst: how much may leave at once after a pause, from 1 to ``amount``. By default one second's worth, and at
            least 1.
        window: whether the rolling window guards the amount.

    Raises:
        TypeError: for an argument that is no number.
        ValueError: for one out of range; both name the argument, its value and what is allowed.
    """

    def __new__(cls, amount: float, per: _Seconds, *, burst: float | None = None, window: bool = True) -> Self: ...
    @property
    def amount(self) -> int:
        """How much may leave in a period."""

    @property
    def per(self) -> float:
        """The period, in seconds."""

    @property
    def burst(self) -> int:
        """How much may leave at once after a pause."""

    @property
    def window(self) -> bool:
        """Whether a rolling window guards the amount."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __getnewargs_ex__(self) -> tuple[tuple[int, float], dict[str, Any]]: ...

@final
class Budget:
    """What one block may use, and what it has used: of `penstock.budget`."""

    def __new__(
        cls, calls: int | None = None, tokens: int | None = None, seconds: float | timedelta | None = None
    ) -> Self: ...
    @property
    def calls(self) -> int:
        """How many calls were made inside, those under way and those that wait included."""

    @property
    def tokens(self) -> int:
        """How many tokens they used: what was settled, and the estimates of those that were not."""

    @property
    def seconds(self) -> float:
        """How many seconds ago the block began."""

    @property
    def refused(self) -> tuple[str, str, float, float] | None:
        """For `penstock.budgets`: what the last call that it stopped was told, as arguments of `BudgetExceeded`."""

    def disown(self) -> None:
        """For `penstock.budgets`: it bounds nothing any more, for whoever still runs inside it."""

@final
class Cost:
    """What a call uses in each dimension: an estimate before, the actual amounts after it is settled."""

    @property
    def requests(self) -> int:
        """Calls to the provider."""

    @property
    def tokens(self) -> int:
        """Input and output tokens together."""

    @property
    def input_tokens(self) -> int:
        """Tokens sent."""

    @property
    def output_tokens(self) -> int:
        """Tokens received."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Permit:
    """The right to make one call now. It is settled and released.

    A context manager that releases at the end of its block. Dropped without release, it gives itself back, so that a
    call that is cancelled, a generator that nobody finishes or a task that dies holds nothing.
    """

    def settle(
        self, tokens: int | None = None, input_tokens: int | None = None, output_tokens: int | None = None
    ) -> None:
        """Replaces the estimated cost by what the call really used: a refund, or a debit.

        A refund goes to the window that was charged and never beyond it; a debit is charged now, into debt if need be.
        Settling again replaces the cost again, and after the release it still counts. In a permit inside which other
        calls of the limiter run, those settle what they use, and this does nothing.

        Args:
            tokens: input and output tokens together. Left out, it is the sum when both others are given, else it stays.
                Where the limiter's provider counts input alone (Gemini), it is the input tokens, if these are given.
            input_tokens: tokens sent; what is left out stays as it was charged.
            output_tokens: tokens received; likewise.

        Raises:
            TypeError, ValueError: for an amount that is no whole number from 0 to 10**15; the cost stays as it was.
        """

    def release(self) -> None:
        """Gives the permit back. Again is harmless."""

    def abandon(self) -> None:
        """For fan-out: gives everything back, since its call never left. After its release that changes nothing."""

    def open(self) -> None:
        """For decorators: says that code will run inside it. Who does so sets the limiter's context variable then."""

    def suspend(self) -> None:
        """For generators: the code that goes on from here does not run inside this permit, until `resume`."""

    def resume(self) -> None:
        """The code that goes on from here runs inside this permit; without effect on one that was released.

        Inside, a call takes no second slot of the same limiter, and the first one is covered by this permit's cost.
        """

    @property
    def waited(self) -> float:
        """How long the call waited for it, in seconds."""

    @property
    def cost(self) -> Cost:
        """What the call is charged: the estimate, or what it was settled with."""

    @property
    def released(self) -> bool:
        """Whether it was given back."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_error: object) -> None: ...

@final
class Scope:
    """A permit for a block, not yet asked for: what `Limiter.permit` gives.

    ``with`` and ``async with`` ask for the permit, wait for it, hand it to the block and give it back at its end. A
    scope can be entered again and again, and by several tasks at once: each block has a permit of its own.

    Raises:
        AcquireTimeout, CostExceedsLimit, QueueFull: when it is entered.
    """

    def __enter__(self) -> Permit: ...
    def __exit__(self, *_error: object) -> None: ...
    def __aenter__(self) -> Awaitable[Permit]: ...
    def __aexit__(self, *_error: object) -> Awaitable[None]: ...
    def ask(self) -> Permit | Acquire:
        """For decorators: a permit that is open, or what a task awaits and a thread sleeps on to get one."""

    def enter_now(self, entered: list[Permit]) -> Permit | Acquire:
        """For `penstock._parking.enter`: a permit whose block has begun, or what a thread must sleep on first.

        The permit is noted in ``entered``, too, for a thread that is interrupted before it knows of it.
        """

    def enter_with(self, permit: Permit) -> None:
        """For `penstock._parking.enter`: the block begins with the permit that was waited for."""

    def undo(self, permit: Permit) -> None:
        """For `penstock._parking.enter`: ends a block that was not entered after all."""

@disjoint_base
class Limiter:
    """A named set of rates and a concurrency: what decides when calls may leave.

    The base of `penstock.Limiter`, which adds decorators and fan-out and documents the arguments.
    """

    def __new__(
        cls,
        *,
        requests: _Limit = None,
        tokens: _Limit = None,
        input_tokens: _Limit = None,
        output_tokens: _Limit = None,
        concurrency: int | None = None,
        per_key: Mapping[str, Any] | None = None,
        name: str | None = None,
        store: str = "memory://",
        network_jitter: _Seconds | None = None,
        max_waiting: int | None = None,
        on_store_failure: str = "share",
        on_conflict: str = "error",
        provider: str | None = None,
    ) -> Self: ...
    @property
    def name(self) -> str:
        """What messages and numbers call it."""

    @property
    def store(self) -> str:
        """Where the ledger is kept, as a URL."""

    @property
    def enclosing(self) -> ContextVar[Permit | None]:
        """For decorators: the context variable that holds the permit which code runs inside."""

    @property
    def provider(self) -> str | None:
        """Whose quota it is; None for a limiter of no provider in particular."""

    @property
    def counts(self) -> bool:
        """Whether anything counts the tokens of calls, a budget included: if not, nobody need look for usage."""

    def permit(
        self,
        tokens: int = 0,
        *,
        requests: int = 1,
        input_tokens: int = 0,
        output_tokens: int = 0,
        key: _Key = None,
        priority: int = 0,
        timeout: _Seconds | None = None,
    ) -> Scope:
        """A permit for a block, for `with` and `async with`; nothing is asked for before the block begins.

        Where `with` has to wait in a thread that runs an event loop it holds that up; a `RuntimeWarning` says so.

        Costs are estimates, whole numbers from 0 to 10**15; `Permit.settle` puts the actual ones in their place.

        Args:
            tokens: input and output tokens together. Left at 0, it is the sum of the two others.
            requests: calls to the provider.
            input_tokens: tokens sent.
            output_tokens: tokens received.
            key: whom the call belongs to (tenant, user, agent): keys share the limiter, weighed by their cost.
            priority: a higher one goes first, from -2**31 to 2**31 - 1.
            timeout: seconds that the call is ready to wait; 0 is now or never, None is however long it takes.

        Raises:
            TypeError, ValueError: for an argument that cannot be, with its name, its value and what is allowed.
        """

    def ask(
        self,
        tokens: int,
        requests: int,
        input_tokens: int,
        output_tokens: int,
        key: _Key,
        priority: int,
        timeout: _Seconds | None,
    ) -> Permit | Acquire:
        """For `acquire`: a permit, or what `penstock._parking.park` sleeps on. Raises what `acquire` does."""

    def ask_for(
        self, call: Call, provider: str, key: _Key, priority: int, timeout: _Seconds | None
    ) -> Permit | Acquire:
        """As `ask`, for a governed call: at what it is expected to cost.

        Raises `ValueError` for an unknown provider, too.
        """

    def aacquire(
        self,
        tokens: int = 0,
        *,
        requests: int = 1,
        input_tokens: int = 0,
        output_tokens: int = 0,
        key: _Key = None,
        priority: int = 0,
        timeout: _Seconds | None = None,
    ) -> Awaitable[Permit]:
        """The twin of `acquire` for tasks: await what it gives, once. Dropped or cancelled, it leaves the queue.

        The place in the queue is that of the call, not that of the ``await``. Under asyncio and the loops that follow
        its protocol (uvloop), and under trio.

        A permit that was there at once and is never awaited gives its slot back, but what it was charged stays charged:
        a permit that is dropped may have made its call, and to tell the two apart would cost every call 23 ns of 350.

        Raises:
            AcquireTimeout, CostExceedsLimit, QueueFull: as in `acquire`, at once or when awaited.
            RuntimeError: when it is awaited a second time, or where no event loop runs.
        """

    def try_acquire(
        self,
        tokens: int = 0,
        *,
        requests: int = 1,
        input_tokens: int = 0,
        output_tokens: int = 0,
        key: _Key = None,
        priority: int = 0,
    ) -> Permit | None:
        """A permit if there is one now, else None. Arguments as in `permit`, but nothing waits.

        Raises:
            CostExceedsLimit: when no wait could satisfy the cost.
            TypeError, ValueError: for an argument that cannot be.
        """

    def observe(
        self, status: int, headers: _Headers | Iterable[tuple[_Text, _Text]] | None, body: object = None
    ) -> Verdict:
        """Tells the limiter what the provider said; gives what that means, as a `Verdict`.

        A stated wait holds back everyone who would be refused, not only the call that was told; limits that headers
        name are taken into account. What governs calls does this by itself.

        Args:
            status: the HTTP status; 0 for no answer at all.
            headers: of the answer, as a mapping or pairs; None when nobody knows them.
            body: of the answer: bytes, str, or what ``json.dumps`` takes.

        Raises:
            TypeError, ValueError: for anything else, with the argument's name and value.
        """

    def heed(self, verdict: Verdict, permit: Permit | None = None) -> None:
        """Takes in what an answer means to the call that left with `permit`.

        Args:
            verdict: what the answer means.
            permit: the call's permit; by default the one that encloses this code.
        """

    def cooldown(self, seconds: _Seconds) -> None:
        """Lets nothing leave for so many seconds (or a timedelta), for all who wait and all who come.

        A longer cooldown that is under way stays.

        Raises:
            TypeError, ValueError: unless it is 0 or more.
        """

    def update(
        self,
        *,
        requests: _Limit = ...,
        tokens: _Limit = ...,
        input_tokens: _Limit = ...,
        output_tokens: _Limit = ...,
        concurrency: int | None = ...,
    ) -> None:
        """Changes limits while calls run and wait; what is not named stays, None takes a limit away.

        What was charged before counts against the new rates. Who waits and now costs more than a limit gets
        `CostExceedsLimit`.

        Raises:
            TypeError, ValueError: for a limit that cannot be, with its name; nothing is changed then.
        """

    def enter_now(self, entered: list[Permit]) -> Permit | Acquire:
        """For `penstock._parking.enter`: a permit whose block has begun, or what a thread must sleep on first.

        The permit is noted in ``entered``, too, for a thread that is interrupted before it knows of it.
        """

    def enter_with(self, permit: Permit) -> None:
        """For `penstock._parking.enter`: the block begins with the permit that was waited for."""

    def undo(self, permit: Permit) -> None:
        """For `penstock._parking.enter`: ends a block that was not entered after all."""

    def expect(self, model: str | None, provider: str = "unknown") -> tuple[float, int | None]:
        """What is known of a model from earlier calls: the factor of its estimated input, and its usual output.

        Both are for `Call.cost`. The factor is the learnt ratio of reported to estimated tokens, from 1/4 to 4 (1 while
        nothing is known); it follows the last twenty calls or so, and a call unlike all others moves it little. The
        output is None while fewer than three calls are known.

        Args:
            model: its name; None for calls that name none.
            provider: decides what is usual: where output counts and ``max_tokens`` reserves nothing (Anthropic,
                Mistral, Groq, ...), what 95 of 100 calls do not exceed; else what half of them do not.

        Raises:
            ValueError: for a provider that is not known.
        """

    def learn(self, call: Call, answer: UsageReader) -> None:
        """Takes in what an answer reported that a call used: `expect` and the error in `stats` come from it."""

    def count_label(self, label: str, permit: Permit) -> None:
        """A call of that label is over: its numbers are kept under the label, too.

        They are those of ``permit``: what it waited, and what it is charged now. One that was given back counts for
        nothing.
        """

    def snapshot(self) -> dict[str, Any]:
        """The numbers that `penstock.Stats` shows."""

    def __exit__(self, *_error: object) -> None: ...
    def __aenter__(self) -> Awaitable[Permit]: ...
    def __aexit__(self, *_error: object) -> Awaitable[None]: ...

@final
class Verdict:
    """What an answer of a provider means, with the wait that it stated.

    Read from status, headers and body by the provider's own rules, which differ more than their documentation says:
    docs/verdicts.md has the table, and the sources.
    """

    @property
    def kind(
        self,
    ) -> Literal["ok", "throttled", "overloaded", "transient", "oversize", "quota_exhausted", "fatal"]:
        """What kind of answer it is; all but the first are failures."""

    @property
    def wait(self) -> float | None:
        """The wait that the provider stated, in seconds; None if it stated none."""

    @property
    def dimension(self) -> _Dimension | None:
        """The dimension that was short; None if that is not known."""

    @property
    def retryable(self) -> bool:
        """Whether the same call can succeed later."""

    @property
    def resets_at(self) -> float | None:
        """When a spent quota is there again, in seconds since 1970; None if that is not known."""

    @property
    def code(self) -> str | None:
        """The provider's own word for the failure, such as `"rate_limit_exceeded"`."""

    @property
    def detail(self) -> str | None:
        """The provider's own sentence about it."""

    @property
    def provider(self) -> str:
        """Whose answer it is, as far as it can be told: "openai", "azure", ..., "unknown"."""

    @property
    def charged(self) -> Literal["nothing", "requests", "all"]:
        """What the provider counts of a call that failed so: "nothing", "requests", or "all".

        A call that the provider may have run is counted in full.
        """

@final
class Call:
    """What a request says about its size, before it is sent."""

    @property
    def model(self) -> str | None:
        """The model or deployment, from the body or from the path; None if neither names it."""

    @property
    def stream(self) -> bool:
        """Whether the answer is streamed."""

    @property
    def input_tokens(self) -> int:
        """Estimated tokens of all text in it; images, audio and files are not counted."""

    @property
    def max_output(self) -> int | None:
        """The most that each choice may generate; None if the request does not say."""

    @property
    def choices(self) -> int:
        """How many answers are made, at least 1."""

    @property
    def generates(self) -> bool:
        """Whether it generates text at all: embeddings, rankings and counts do not."""

    @property
    def size(self) -> int:
        """Bytes of all text in it."""

    def cost(self, provider: str, expected_output: int | None = None, scale: float = 1.0) -> Cost:
        """What the call costs when the provider admits it.

        Providers differ: OpenAI takes the larger of the text and ``max_tokens``, Azure their sum, Gemini the text
        alone, Anthropic what is really used. docs/verdicts.md has the table.

        Args:
            provider: who is called, as `provider_of` names it.
            expected_output: tokens that such a call is known to generate, from `Limiter.expect`; by default a few
                paragraphs. It counts where ``max_tokens`` reserves nothing or is not set.
            scale: corrects ``input_tokens`` by what was learnt, from `Limiter.expect`.

        Raises:
            TypeError, ValueError: for an argument that cannot be, with its name, its value and what is allowed.
        """

    def settled(self, provider: str, used: Cost) -> Cost:
        """What the provider counts in the end of this call, which used so much by its report (`UsageReader.cost`).

        Where a reservation is not known to be given back (OpenAI keeps what ``max_tokens`` reserved), no less than
        that.

        Raises:
            ValueError: for a provider that is not known.
        """

@final
class UsageReader:
    """Reads the usage in an answer, and an error inside it, from its decoded body as that comes.

    JSON, server-sent events (chat completions, responses, Anthropic, Gemini, Mistral, Cohere), lines of JSON (Ollama)
    and Bedrock's event stream. Nothing of the answer is kept: a stream of any length takes the same memory. Whatever
    comes, it raises nothing.

    Args:
        provider: who answers, as `provider_of` names it; ``"unknown"`` is told from the headers.
        model: the model that was called: some are counted differently.
        content_type: how the body is written; where it does not say, the first byte does.
        headers: of the answer, as a mapping or pairs.

    Raises:
        TypeError, ValueError: for an argument that cannot be.
    """

    def __new__(
        cls,
        provider: str,
        model: str | None = None,
        content_type: str = "",
        headers: _Headers | Iterable[tuple[_Text, _Text]] | None = None,
    ) -> Self: ...
    def feed(self, chunk: bytes) -> None:
        """Takes in the next bytes of the body, decompressed and cut anywhere."""

    def cost(self) -> Cost | None:
        """What the call cost as the provider counts, as far as it has been reported; None before that.

        Reports of a stream are running totals, so a later one only adds.
        """

    def estimate(self) -> int:
        """Output tokens so far, estimated from the text that has come."""

    def verdict(self) -> Verdict | None:
        """What an error inside the answer means; None if there was none."""

    @property
    def provider(self) -> str:
        """Whose answer it is: as given, or as its headers show."""

    @property
    def json(self) -> bool:
        """Whether its headers say that the answer is one piece of JSON."""

    @property
    def encoding(self) -> str:
        """How its headers say that the body is compressed; empty if it is not."""

@final
class Sent:
    """What is read of a request before it is sent. What authenticates it is not shown.

    Args:
        method: of the request.
        host: that it goes to.
        port: if it is not the usual one.
        path: of its URL, with the query.
        headers: of the request, as pairs.
        secret: what authenticates it besides its headers.

    Raises:
        TypeError: for headers that are none.
    """

    def __new__(
        cls,
        method: str,
        host: str,
        port: int | None,
        path: bytes,
        headers: Iterable[tuple[_Text, _Text]],
        secret: str = "",
    ) -> Self: ...
    @property
    def method(self) -> str:
        """Its method."""

    @property
    def host(self) -> str:
        """The host that it goes to."""

    @property
    def port(self) -> int | None:
        """The port, if it is not the usual one."""

    @property
    def path(self) -> str:
        """The path of its URL, with the query."""

    @property
    def agent(self) -> str:
        """The `user-agent`, which names an SDK."""

    @property
    def retried(self) -> bool:
        """Whether the SDK says that it sends it again."""

    @property
    def json(self) -> bool:
        """Whether its body is one to read."""

    @property
    def free(self) -> bool:
        """Whether it takes nothing from any quota of calls and tokens."""

    @property
    def provider(self) -> str:
        """Whose API it goes to, by its address and its path."""

    def read(self, body: bytes) -> Call:
        """What it says of its size in `body`."""

    def hash(self, body: bytes) -> int:
        """What stands for it and its body in a `Memory`."""

@final
class UsageFilter:
    """Takes the event that only reports usage out of a stream whose caller did not ask for it.

    For streams of chat completions that were asked to report by `ask_for_usage`. Everything else is handed on byte for
    byte, an event at a time.
    """

    def __new__(cls) -> Self: ...
    def feed(self, chunk: bytes) -> bytes:
        """The bytes to hand on when these have come: whole events."""

    def end(self) -> bytes:
        """What is left to hand on when the stream has ended."""

@final
class RetryBudget:
    """The share of calls in flight that may be retries: what keeps retries from flooding a provider that is down.

    One budget may be shared by several `Retry`. In a forked child it starts anew.

    Args:
        ratio: retries in flight per call in flight, from 0 to 100.
        minimum: how many retries may be in flight however few calls are.
        per_minute: how many retries may begin in a minute, at least 1; None does not bound that.

    Raises:
        TypeError, ValueError: for an argument that cannot be, with its name, its value and what is allowed.
    """

    def __new__(cls, ratio: float = 0.2, minimum: int = 3, per_minute: int | None = None) -> Self: ...
    def begin(self, handled: BaseException | None) -> Attempts:
        """A call begins: its first attempt has what it needs.

        Args:
            handled: the exception that is being handled, which is the context of whatever the call raises.
        """

    def account(self) -> tuple[int, int, int, int]:
        """Calls in flight, retries in flight, retries granted and retries suppressed so far."""

@final
class RetryPolicy:
    """How often, how late and how spread out a failed call is tried again."""

    def __new__(
        cls,
        attempts: int,
        initial: float,
        factor: float,
        max_delay: float,
        jitter: str | None,
        deadline: float | None,
        seed: int,
    ) -> Self: ...
    def decide(
        self, attempts: Attempts, verdict: Verdict | None, wait: float | None, streamed: bool, spread: bool
    ) -> tuple[float | None, str | None]:
        """What to do after a failed attempt: the seconds to wait and None, or None and the reason to stop.

        Args:
            attempts: how far the call has come; it is told of the retry.
            verdict: what the failure means; None for one that is retried though nothing is known of it.
            wait: the seconds that the caller asks for.
            streamed: whether a part of the answer was seen already: then there is no retry.
            spread: whether nothing but chance keeps calls that were told the same wait from returning together.
        """

    def step(self, retry: int) -> float:
        """The longest backoff before retry number `retry`, in seconds; the first is 1."""

@final
class Memory:
    """Requests that were given up, each with what it ended with, for a time.

    At most 10,000: beyond that, those go whose time ends first.
    """

    def __new__(cls) -> Self: ...
    def remember(self, request: int, seconds: float, outcome: object) -> None:
        """Remembers what a request ended with, for so many seconds."""

    def recall(self, request: int) -> Any:
        """What is remembered of a request, or None."""

    def forget(self, request: int) -> None:
        """Forgets a request."""

    def __len__(self) -> int: ...

@final
class Attempts:
    """How far one call has come. Dropped or ended, it gives its places in the budget back."""

    @property
    def order(self) -> int:
        """Its place in the order of calls and of failures given up: an older failure is none of this call's."""

    @property
    def handled(self) -> int:
        """The identity of the exception that was being handled when the call began, 0 for none.

        It is the context of whatever the call raises, and no part of that.
        """

    def end(self) -> None:
        """The call is over."""

    def told(self) -> tuple[int, list[float]]:
        """Attempts made so far, and the seconds waited between them."""

@final
class Waiter:
    """A place in the queue, of a task or of a thread, which hold it in an `Acquire`."""

@disjoint_base
class Acquire:
    """What one gets who must wait: a task awaits it, once; a thread parks on it.

    Dropped before it is through, it gives up.
    """

    def __await__(self) -> Generator[Any, Any, Permit]: ...
    def __next__(self) -> Any: ...
    def send(self, value: object) -> Any:
        """One step of the task that awaits it; the value says nothing."""

    def throw(
        self,
        kind: type[BaseException] | BaseException,
        value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> Any:
        """Gives up, as `close` does, and raises what was thrown in."""

    def close(self) -> None:
        """Gives up: leaves the queue, or gives back what was granted. Harmless when it is over."""

    def park(self, lock: _Lock) -> float | None:
        """For a thread: how long to sleep on `lock`, in seconds, or None when it is decided.

        A negative number is until ``lock`` is released, by whoever decides.
        """

    def result(self) -> Permit:
        """For a thread: the permit, once it is decided.

        Raises:
            AcquireTimeout, CostExceedsLimit: if that is the decision.
            RuntimeError: if it was taken already, or there is none yet.
        """

def estimate_tokens(text: str) -> int:
    """About how many tokens a text has, told without a tokenizer."""

def read_answer(
    status: int,
    headers: _Headers | Iterable[tuple[_Text, _Text]] | None = None,
    body: object = None,
    provider: str | None = None,
) -> Verdict:
    """What an answer of a provider means; without effect on any limiter.

    Args:
        status: the HTTP status; 0 for no answer at all.
        headers: of the answer, as a mapping or pairs; None when nobody knows them.
        body: of the answer: bytes, str, or what ``json.dumps`` takes.
        provider: whose answer it is, if that is known; otherwise it is told from the headers and the body.

    Raises:
        TypeError, ValueError: for anything else, with the argument's name and value.
    """

def read_call(path: str, body: bytes) -> Call:
    """Reads a request from its body and the path of its URL, with or without the query.

    A body that is no JSON object is a call without tokens.
    """

def provider_of(host: str, path: str = "") -> str:
    """Whose API a request goes to, by its host or URL, else by its path.

    That is ``"openai"``, ``"azure_openai"``, ``"anthropic"``, ..., or ``"unknown"``. The paths of OpenAI's API tell
    nothing, since everyone has them: at an unknown host they are ``"unknown"``.
    """

def provider_rate(provider: str, name: str, dimension: str, amount: float, per: _Seconds) -> Rate:
    """A limit as a rate of the shape in which a provider enforces it.

    A limit per minute leaves room where shorter windows are enforced inside (Azure, Together, Mistral); one of an hour
    or more may be used at once.

    Args:
        provider: as `provider_of` names it.
        name: what errors call the amount.
        dimension: what is counted.
        amount: how much per period.
        per: the period, in seconds.

    Raises:
        TypeError, ValueError: for an argument that cannot be, with its name, its value and what is allowed.
    """

def is_free(method: str, path: str) -> bool:
    """Whether a request takes nothing from any quota of calls and tokens: lists, look-ups, files, cancellations."""

def ask_for_usage(provider: str, path: str, body: bytes) -> bytes | None:
    """The same body, which also asks for the usage at the end of its stream; None when there is nothing to ask.

    That is: when it asks already, when it is no stream of chat completions, and when the provider tells by itself or
    refuses to be asked (Mistral, versions of Azure's API before 2024-09). `UsageFilter` takes the answer out again.

    Raises:
        ValueError: for a provider that is not known.
    """

def cost_of(limiter: Limiter, call: Call, provider: str) -> Cost:
    """What a call costs by what the limiter has learnt of its model. Raises `ValueError` for an unknown provider."""

def begin_answer(
    limiter: Limiter,
    call: Call,
    provider: str,
    status: int,
    headers: Iterable[tuple[_Text, _Text]],
    permit: Permit | None,
) -> UsageReader:
    """An answer that is no failure begins: the limiter hears its headers, and its body is read with what this gives.

    Raises:
        TypeError, ValueError: for headers that are none, and for a provider that is not known.
    """

def settle_answer(limiter: Limiter, call: Call, answer: UsageReader, permit: Permit, whole: bool, blind: bool) -> None:
    """Settles a permit by what an answer says that its call used; by what came of it, if it says nothing.

    Of an answer that was not read to its end nothing is refunded: what the provider has made beyond what was read,
    nobody knows. An error inside of the answer is told to the limiter.

    Args:
        limiter: that the permit is of.
        call: what was asked.
        answer: what came.
        permit: of the call.
        whole: whether it was read to its end.
        blind: whether it could not be read, since its compression is not known.
    """

def hash_request(method: str, url: str, secret: str, body: bytes) -> int:
    """What stands for a request in a `Memory`: the same for the same parts, in this process.

    Args:
        method: of the request.
        url: its address.
        secret: what authenticates it: with another key it is another request.
        body: what it sends.
    """

def next_order() -> int:
    """A place in the order of the process's calls, and of failures that were given up: later than all before."""

def after_fork() -> None:
    """What a forked child does before it uses a limiter.

    The calls under way and those that wait are the parent's: the child's limiters start with none.
    """

def heard() -> bool:
    """For `penstock._bells`: the listening thread was woken. Gives whether it is to go on."""

def retire() -> None:
    """For `penstock._bells`, at the interpreter's exit: what is held elsewhere is given back.

    Nothing is started any more from here on.
    """

def look() -> None:
    """For `penstock._watching`: lets the calls leave that other processes have set free."""

def clock_now() -> float:
    """The process's monotonic clock, in seconds: virtual while frozen."""

def check_pause(seconds: float) -> None:
    """For pauses between two attempts: raises `BudgetExceeded` if one of so many seconds outlasts a budget."""

def clock_freeze() -> None:
    """Stops the clock; only `clock_advance` moves it then. For tests."""

def clock_advance(seconds: _Seconds) -> None:
    """Moves a frozen clock forward by so many seconds; without effect on one that runs."""

def clock_thaw() -> None:
    """Lets a frozen clock run on from where it stands."""

def clock_frozen() -> bool:
    """Whether the clock is frozen."""
