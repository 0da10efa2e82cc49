"""`Limiter.observe`: what the provider says holds for everyone who waits."""

from __future__ import annotations

import asyncio
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest
from loops import IDLE, lasting, run, standing

import penstock
from penstock import AcquireTimeout, Limiter, QuotaExhausted, Retry, Verdict, per_day, per_minute, per_second
from penstock.testing import virtual_time
from penstock.testing.provider import FakeProvider

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLES = Path(__file__).parents[1] / "data" / "provider"


def sample(name: str) -> dict[str, Any]:
    """A recorded answer."""
    with (SAMPLES / f"{name}.json").open(encoding="utf-8") as file:
        answer: dict[str, Any] = json.load(file)
    return answer


def observe(limiter: Limiter, name: str) -> Verdict:
    answer = sample(name)
    return limiter.observe(answer["status"], answer["headers"], answer["body"])


def level(limiter: Limiter, dimension: str) -> Any:
    return next(level for level in limiter.stats().levels if level.dimension == dimension)


@pytest.fixture
def clock() -> Iterator[Any]:
    with virtual_time() as clock:
        yield clock


def left_after(limiter: Limiter, clock: Any, **cost: int) -> float:
    """How long a call of this cost waits."""
    began: float = clock.now
    limiter.acquire(**cost).release()
    waited: float = clock.now - began
    return waited


# What was read.


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.json")), ids=lambda path: path.stem)
def test_recorded_answers_are_observed_without_harm(path: Path) -> None:
    answer = json.loads(path.read_text(encoding="utf-8"))
    limiter = Limiter(requests=1_000, tokens=100_000, input_tokens=50_000, output_tokens=50_000, concurrency=5)
    verdict = limiter.observe(answer["status"], answer["headers"], answer["body"])
    # Whose answer it is has to be guessed here, so not every detail is found; but nothing that costs money is.
    if answer["expect"]["retryable"] is False:
        assert not verdict.retryable or answer["provider"] != "openai"
    assert (verdict.wait or 0) >= 0
    assert 0 < limiter.stats().speed <= 1
    assert all(level.rate.amount <= 100_000 for level in limiter.stats().levels)
    assert standing(limiter) == IDLE


def test_what_a_verdict_says() -> None:
    verdict = observe(Limiter(tokens=30_000), "openai-429-tpm-1780ms")
    assert isinstance(verdict, Verdict)
    told = (verdict.kind, verdict.dimension, verdict.retryable, verdict.code)
    assert told == ("throttled", "tokens", True, "rate_limit_exceeded")
    assert verdict.wait == pytest.approx(1.78)
    assert verdict.charged == "requests"
    assert repr(verdict) == '<Verdict throttled, short of tokens, wait 1.780 s, retryable, code "rate_limit_exceeded">'
    spent = observe(Limiter(), "openai-429-insufficient-quota")
    assert (spent.kind, spent.retryable, spent.wait) == ("quota_exhausted", False, None)


# A throttle.


def test_a_throttle_stops_all_who_are_charged_for_what_was_short(clock: Any) -> None:
    limiter = Limiter(requests=per_second(1_000), tokens=lasting(1_000_000))
    observe(limiter, "openai-429-tpm-1780ms")
    assert left_after(limiter, clock) == 0  # needs no tokens
    with pytest.raises(AcquireTimeout) as caught:
        limiter.acquire(1, timeout=1)
    assert caught.value.retry_after == pytest.approx(1.78)
    assert left_after(limiter, clock, tokens=1) == pytest.approx(1.78)


def test_a_throttle_of_what_is_not_counted_stops_everyone(clock: Any) -> None:
    limiter = Limiter(requests=per_second(1_000))
    observe(limiter, "openai-429-tpm-1780ms")
    assert limiter.stats().cooldown == pytest.approx(1.78)
    assert left_after(limiter, clock) == pytest.approx(1.78)


def test_a_throttle_without_a_wait_stops_everyone_for_a_second(clock: Any) -> None:
    limiter = Limiter(concurrency=5)
    limiter.observe(429, {})
    assert left_after(limiter, clock) == pytest.approx(1)


def test_a_throttle_holds_those_who_wait_already_and_they_leave_in_no_herd(clock: Any) -> None:
    limiter = Limiter(requests=per_second(10))
    left: list[float] = []

    async def call() -> None:
        async with limiter.permit():
            left.append(clock.now)

    async def main() -> None:
        waiting = [asyncio.ensure_future(call()) for _ in range(30)]
        await asyncio.sleep(0.05)
        limiter.observe(429, {"retry-after": "20"})
        await asyncio.gather(*waiting)

    asyncio.run(main())
    at_once = sum(at <= 0.05 for at in left)
    assert at_once < 30
    after = sorted(at for at in left if at > 0.05)
    assert after[0] == pytest.approx(20.05, abs=0.01)
    for index, at in enumerate(after):
        assert sum(at <= other < at + 1 for other in after) <= 10, index


def test_a_stated_wait_is_never_shortened_by_another(clock: Any) -> None:
    limiter = Limiter(concurrency=5)
    limiter.observe(429, {"retry-after": "30"})
    limiter.observe(429, {"retry-after": "2"})
    assert left_after(limiter, clock) == pytest.approx(30)


# What is learned.


def test_limits_are_learned_downwards_only() -> None:
    limiter = Limiter(requests=10_000, tokens=2_000_000)
    observe(limiter, "openai-200-chat")  # 5000 requests and 800000 tokens a minute
    assert (level(limiter, "requests").rate.amount, level(limiter, "tokens").rate.amount) == (5_000, 800_000)
    modest = Limiter(requests=100, tokens=1_000)
    observe(modest, "openai-200-chat")
    assert (level(modest, "requests").rate.amount, level(modest, "tokens").rate.amount) == (100, 1_000)
    assert level(modest, "requests").window == 100


def test_a_limit_that_was_learned_is_lifted_only_to_what_was_configured() -> None:
    limiter = Limiter(requests=500)
    for told, holds in ((100, 100), (300, 300), (9_000, 500), (0, 500)):
        limiter.observe(200, {"x-ratelimit-limit-requests": str(told), "x-ratelimit-remaining-requests": str(told)})
        assert level(limiter, "requests").rate.amount == holds
    assert level(limiter, "requests").rate == per_minute(500)


def test_limits_of_another_period_are_not_mixed_up() -> None:
    limiter = Limiter(requests=[per_minute(500), per_day(10_000)])
    observe(limiter, "openai-429-rpd-7m12s")  # 200 a day
    assert [level.rate.amount for level in limiter.stats().levels] == [500, 200]


def test_what_others_have_used_is_not_there(clock: Any) -> None:
    limiter = Limiter(requests=per_minute(600, burst=600))
    answer = {"x-ratelimit-limit-requests": "600", "x-ratelimit-remaining-requests": "600"}
    limiter.observe(200, answer)
    assert limiter.stats().speed == 1
    with limiter.permit():
        limiter.observe(200, answer | {"x-ratelimit-remaining-requests": "12"})
    assert limiter.stats().speed < 1
    left = 0
    while limiter.try_acquire() is not None:
        left += 1
    assert left in {11, 12}  # what was under way may or may not be in the provider's number


def test_an_answer_that_comes_late_is_no_news(clock: Any) -> None:
    limiter = Limiter(requests=600)
    answer = {"x-ratelimit-limit-requests": "600", "x-ratelimit-remaining-requests": "600"}
    early = limiter.acquire()
    clock.advance(1)
    with limiter.permit():
        limiter.observe(200, answer)
    limiter.heed(penstock._core.read_answer(200, answer | {"x-ratelimit-remaining-requests": "0"}), early)
    assert limiter.stats().speed == 1
    limiter.acquire(timeout=0).release()


# A quota that is spent.


def test_a_spent_quota_fails_fast() -> None:
    limiter = Limiter(requests=100)
    observe(limiter, "openai-429-insufficient-quota")
    for _ in range(3):
        with pytest.raises(QuotaExhausted, match="spent") as caught:
            limiter.acquire()
        assert caught.value.resets_at is None
    assert limiter.stats().refused == 3


def test_a_spent_quota_says_when_it_is_back(clock: Any) -> None:
    limiter = Limiter(requests=100)
    now = time.time()
    verdict = observe(limiter, "gemini-429-per-day")
    assert verdict.kind == "quota_exhausted"
    with pytest.raises(QuotaExhausted) as caught:
        limiter.acquire()
    resets_at = caught.value.resets_at
    assert resets_at is not None
    assert resets_at == pytest.approx(verdict.resets_at, abs=0.001)
    assert 0 < resets_at - now < 26 * 3_600  # midnight in California


def test_a_spent_quota_fails_those_who_wait() -> None:
    limiter = Limiter(requests=lasting(1), concurrency=2)

    async def main() -> None:
        limiter.acquire().release()
        waiting = [asyncio.ensure_future(limiter.aacquire()) for _ in range(50)]
        await asyncio.sleep(0)
        assert standing(limiter) == (0, 50)
        observe(limiter, "openai-429-insufficient-quota")
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(result) for result in results} == {QuotaExhausted}

    run(main())
    assert standing(limiter) == IDLE


def test_one_call_now_and_then_asks_whether_the_quota_is_back(clock: Any) -> None:
    limiter = Limiter(concurrency=10)
    observe(limiter, "openai-429-insufficient-quota")

    def admitted() -> int:
        count = 0
        for _ in range(10):
            try:
                limiter.acquire().release()
            except QuotaExhausted:
                continue
            count += 1
        return count

    assert admitted() == 0
    clock.advance(29.9)
    assert admitted() == 0
    clock.advance(0.2)
    assert admitted() == 1
    clock.advance(31)
    with limiter.permit():  # the probe
        assert limiter.try_acquire() is None
        with pytest.raises(QuotaExhausted):
            limiter.acquire()
        limiter.observe(200, {})
    assert admitted() == 10


def test_a_success_that_left_before_the_quota_was_spent_is_no_news(clock: Any) -> None:
    limiter = Limiter(concurrency=10)
    early = limiter.acquire()
    clock.advance(1)
    observe(limiter, "openai-429-insufficient-quota")
    good = penstock._core.read_answer(200, {})
    limiter.heed(good, early)
    with pytest.raises(QuotaExhausted):
        limiter.acquire()
    clock.advance(31)
    probe = limiter.acquire()
    clock.advance(1)
    # Nor is a refusal that comes late: the probe's success counts all the same.
    answer = sample("openai-429-insufficient-quota")
    limiter.heed(penstock._core.read_answer(answer["status"], answer["headers"], answer["body"]), early)
    limiter.heed(good, probe)
    limiter.acquire().release()


def test_a_spent_quota_is_there_again_at_its_time(clock: Any) -> None:
    limiter = Limiter(concurrency=10)
    verdict = observe(limiter, "gemini-429-per-day")
    assert verdict.resets_at is not None
    clock.advance(verdict.resets_at - time.time() - 60)
    limiter.acquire().release()  # the probe
    with pytest.raises(QuotaExhausted):
        limiter.acquire()
    clock.advance(61)
    for _ in range(5):
        limiter.acquire().release()


# An overload.


def test_an_overload_slows_and_success_recovers(clock: Any) -> None:
    limiter = Limiter(requests=per_second(10))
    assert observe(limiter, "openai-503-overloaded").kind == "overloaded"
    assert limiter.stats().speed == 0.7
    limiter.observe(503, {})
    assert limiter.stats().speed == 0.7  # of the same burst
    clock.advance(2)
    limiter.observe(529, {})
    assert limiter.stats().speed == pytest.approx(0.49)
    clock.advance(3_600)
    limiter.observe(200, {})
    assert limiter.stats().speed == pytest.approx(0.49)  # who sends nothing learns nothing
    speeds = []
    for _ in range(400):
        limiter.acquire().release()
        limiter.observe(200, {})
        speeds.append(limiter.stats().speed)
    assert speeds == sorted(speeds)
    assert speeds[-1] == 1


def test_an_overload_takes_slots_where_there_is_no_rate(clock: Any) -> None:
    limiter = Limiter(concurrency=10)
    limiter.observe(503, {})
    held = [limiter.acquire() for _ in range(7)]
    assert limiter.try_acquire() is None
    assert limiter.stats().speed == 0.7
    for _ in range(40):
        clock.advance(1.5)
        limiter.observe(200, {})
    assert limiter.stats().speed == 1
    assert limiter.try_acquire() is not None
    del held


@pytest.mark.parametrize("status", [0, 400, 401, 404, 408, 413, 500, 502])
def test_what_says_nothing_of_quotas_changes_nothing(status: int) -> None:
    limiter = Limiter(requests=10, concurrency=5)
    before = limiter.stats()
    assert limiter.observe(status, {}).kind in {"transient", "oversize", "fatal"}
    assert limiter.stats() == before


# Headers and bodies, in all their forms.

SHORT = {"error": {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}}


class Multi:
    """As httpx's headers and multidicts are."""

    def multi_items(self) -> list[tuple[str, str]]:
        return [("retry-after", "7"), ("x-other", "1")]


@pytest.mark.parametrize(
    "headers",
    [
        {"retry-after": "7"},
        {"Retry-After": "7"},
        {b"retry-after": b"7"},
        {"retry-after": 7},
        [("retry-after", "7")],
        [(b"Retry-After", b"7")],
        [["retry-after", "7"]],
        (("retry-after", "7"),),
        {"retry-after": "7"}.items(),
        iter([("retry-after", "7")]),
        Multi(),
        {"x-garbage": "\ud800", "x-none": None, "retry-after": "7"},
    ],
    ids=lambda headers: type(headers).__name__,
)
def test_forms_of_headers(headers: Any) -> None:
    assert Limiter().observe(429, headers).wait == 7


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_headers_of_http_libraries(library: str) -> None:
    module = pytest.importorskip(library)
    assert Limiter().observe(429, module.Headers([("Retry-After", "7"), ("x-a", "1"), ("x-a", "2")])).wait == 7


def test_headers_of_aiohttp() -> None:
    multidict = pytest.importorskip("multidict")
    headers = multidict.CIMultiDict([("Retry-After", "7")])
    assert Limiter().observe(429, headers).wait == 7
    assert Limiter().observe(429, multidict.CIMultiDictProxy(headers)).wait == 7


@pytest.mark.parametrize("body", [SHORT, json.dumps(SHORT), json.dumps(SHORT).encode()])
def test_forms_of_bodies(body: Any) -> None:
    assert Limiter().observe(429, None, body).code == "rate_limit_exceeded"
    assert Limiter().observe(429, {}, body).dimension == "requests"


@pytest.mark.parametrize(
    "body", [None, "", b"", b"\xff\x00", "\ud800", "{", [], {}, 5, [1, {"error": None}], "x" * 10**6]
)
def test_bodies_that_say_nothing(body: Any) -> None:
    assert Limiter().observe(429, {"retry-after": "7"}, body).wait == 7


@pytest.mark.parametrize("status", [-1, 1_000, 200.5, math.nan, 10**30])
def test_a_status_that_cannot_be(status: Any) -> None:
    with pytest.raises(ValueError, match="status must be a whole number from 0 to 999, not "):
        Limiter().observe(status, {})


@pytest.mark.parametrize("status", ["429", None, True, b"429", [429]])
def test_a_status_of_the_wrong_type(status: Any) -> None:
    with pytest.raises(TypeError, match="status must be a whole number from 0 to 999, not "):
        Limiter().observe(status, {})


@pytest.mark.parametrize(
    "headers", [5, "retry-after: 7", b"retry-after", [1], [("a",)], [("a", "b", "c")], {5: "a"}, True]
)
def test_headers_that_cannot_be(headers: Any) -> None:
    limiter = Limiter(requests=5)
    with pytest.raises(TypeError, match="headers must be a mapping of names to values, a list of such pairs, or None"):
        limiter.observe(429, headers)
    assert limiter.stats().cooldown == 0


@pytest.mark.parametrize("body", [object(), {"a": object()}, {1, 2}, 1j, {(1, 2): 3}])
def test_bodies_that_cannot_be(body: Any) -> None:
    with pytest.raises(TypeError, match=r"body must be bytes, str, what json.dumps takes, or None, not "):
        Limiter().observe(429, {}, body)


# End to end.


@pytest.mark.slow
def test_a_limiter_that_is_told_too_much_learns_better() -> None:
    """Twice too fast for the provider, the real SDK, and no retries but ours."""
    calls = 60

    async def main() -> None:
        async with FakeProvider(requests=900, burst=15, latency=0.01, latency_jitter=0) as provider:
            limiter = Limiter(requests=1_800)
            client = openai.AsyncOpenAI(base_url=provider.base_url, api_key="x", max_retries=0)

            @limiter.limit(retry=Retry(attempts=8))
            async def call(number: int) -> str:
                answer = await client.chat.completions.create(
                    model="gpt-4o", messages=[{"role": "user", "content": f"{number}"}], max_tokens=4
                )
                return str(answer.id)

            answers = await asyncio.gather(*(call(number) for number in range(calls)))
            await client.close()
            assert len(set(answers)) == calls == provider.summary().admitted
            refused = [arrival.time - provider.log[0].time for arrival in provider.log if arrival.status == 429]
            assert refused  # what left in the first burst was too much
            assert sum(at > 1 for at in refused) <= 2  # and what left after it was not
            assert level(limiter, "requests").rate.amount == 900
            assert standing(limiter) == IDLE
            assert limiter.retry_budget.account()[:2] == (0, 0)

    with virtual_time():
        run(main())
