"""The fake provider's quotas in virtual time, each against an oracle that keeps everything and starts from scratch."""

from __future__ import annotations

import copy
import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.testing.provider.enforcer import Enforcer, FixedWindow, RollingWindow, SubWindows, TokenBucket
from penstock.testing.provider.headers import go_duration, quota_headers, refusal_message, retry_headers
from penstock.testing.provider.latency import Latency, NetworkJitter
from penstock.testing.provider.policy import NANOSECONDS, Policy
from penstock.testing.provider.quota import Level, Quota, Refusal

SECOND = NANOSECONDS
MINUTE = 60 * SECOND
DAY = 24 * 60 * MINUTE

PROPERTY = settings(deadline=None, derandomize=True)  # a busy machine may be slow; the same cases in every run

# Small periods in whole "nanoseconds" make boundaries, ties and exact refills common.
LIMITS = st.integers(1, 20)
PERIODS = st.integers(1, 40)
SCHEDULES = st.lists(st.tuples(st.integers(0, 25), st.integers(1, 20)), max_size=60)  # (time since the last, cost)


def play(enforcer: Enforcer, schedule: list[tuple[int, int]]) -> list[tuple[int, int, bool]]:
    """Ask for each cost at its time and charge it if admitted; gives (time, cost, admitted)."""
    now = 0
    played = []
    for gap, cost in schedule:
        now += gap
        if cost > enforcer.largest:
            continue
        admitted = enforcer.wait(cost, now) == 0
        if admitted:
            enforcer.charge(cost, now)
        played.append((now, cost, admitted))
    return played


@PROPERTY
@given(LIMITS, PERIODS, SCHEDULES)
def test_rolling_window_admits_whatever_keeps_every_window_within_the_amount(
    limit: Any, per: Any, schedule: Any
) -> None:
    admitted: list[tuple[int, int]] = []
    for now, cost, was_admitted in play(RollingWindow(limit, per), schedule):
        inside = sum(charged for at, charged in admitted if at > now - per)
        assert was_admitted == (inside + cost <= limit)
        if was_admitted:
            admitted.append((now, cost))
    for start, _ in admitted:
        assert sum(cost for at, cost in admitted if start <= at < start + per) <= limit


@PROPERTY
@given(LIMITS, PERIODS, st.integers(0, 39), SCHEDULES)
def test_fixed_window_resets_at_its_boundary_and_only_there(limit: Any, per: Any, phase: Any, schedule: Any) -> None:
    phase %= per
    used: dict[int, int] = {}
    for now, cost, was_admitted in play(FixedWindow(limit, per, origin=-phase), schedule):
        window = (now + phase) // per
        assert was_admitted == (used.get(window, 0) + cost <= limit)
        used[window] = used.get(window, 0) + cost * was_admitted


@PROPERTY
@given(LIMITS, PERIODS, st.integers(1, 30), SCHEDULES)
def test_token_bucket_equals_level_arithmetic(limit: Any, per: Any, burst: Any, schedule: Any) -> None:
    level = Fraction(burst)
    last = 0
    for now, cost, was_admitted in play(TokenBucket(limit, per, burst=burst), schedule):
        level = min(Fraction(burst), level + Fraction(limit, per) * (now - last))
        last = now
        assert was_admitted == (cost <= level)
        level -= cost * was_admitted


@PROPERTY
@given(LIMITS, st.integers(1, 8), st.integers(1, 8), st.integers(0, 39), SCHEDULES)
def test_sub_windows_admit_their_share_and_never_more_than_the_amount(
    limit: Any, sub: Any, parts: Any, phase: Any, schedule: Any
) -> None:
    per = sub * parts
    phase %= per
    share = math.ceil(Fraction(limit, parts))
    slices: dict[int, int] = {}
    wholes: dict[int, int] = {}
    for now, cost, was_admitted in play(SubWindows(limit, per, sub=sub, origin=-phase), schedule):
        piece, whole = (now + phase) // sub, (now + phase) // per
        fits = slices.get(piece, 0) + cost <= share and wholes.get(whole, 0) + cost <= limit
        assert was_admitted == fits
        slices[piece] = slices.get(piece, 0) + cost * was_admitted
        wholes[whole] = wholes.get(whole, 0) + cost * was_admitted


ENFORCERS = st.one_of(
    st.builds(TokenBucket, LIMITS, PERIODS),
    # A bucket holds at least what one tick of this coarse clock refills, or the greediest could not take all of it.
    st.builds(
        lambda limit, per, more: TokenBucket(limit, per, burst=1 - (1 - limit) // per + more),
        LIMITS,
        PERIODS,
        st.integers(0, 29),
    ),
    st.builds(FixedWindow, LIMITS, PERIODS, origin=st.integers(-39, 0)),
    st.builds(RollingWindow, LIMITS, PERIODS),
    st.builds(
        lambda limit, sub, parts: SubWindows(limit, sub * parts, sub=sub), LIMITS, st.integers(1, 8), st.integers(1, 8)
    ),
)


@PROPERTY
@given(ENFORCERS, SCHEDULES, st.integers(0, 25), st.integers(1, 20))
def test_wait_is_exact_and_the_stated_wait_is_enough(enforcer: Any, schedule: Any, gap: Any, cost: Any) -> None:
    played = play(enforcer, schedule)
    now = (played[-1][0] if played else 0) + gap
    cost = min(cost, enforcer.largest)
    wait = enforcer.wait(cost, now)
    stated = enforcer.stated_wait(cost, now)
    assert stated >= wait
    assert copy.deepcopy(enforcer).wait(cost, now + stated) == 0
    if wait:
        assert copy.deepcopy(enforcer).wait(cost, now + wait - 1) == 1


@PROPERTY
@given(ENFORCERS, SCHEDULES)
def test_time_to_full_is_when_nothing_is_in_use_any_more(enforcer: Any, schedule: Any) -> None:
    played = play(enforcer, schedule)
    now = played[-1][0] if played else 0
    empty = copy.deepcopy(enforcer).used(now + 10**9)
    to_full = enforcer.time_to_full(now)
    if to_full:
        assert copy.deepcopy(enforcer).used(now + to_full - 1) > empty
    assert enforcer.used(now + to_full) == empty


@PROPERTY
@given(ENFORCERS, SCHEDULES)
def test_no_schedule_is_admitted_beyond_what_is_available_and_the_greediest_reaches_it(
    enforcer: Any, schedule: Any
) -> None:
    fresh = copy.deepcopy(enforcer)
    played = play(enforcer, schedule)
    end = played[-1][0] if played else 0
    admitted = sum(cost for _, cost, was_admitted in played if was_admitted)
    start = played[0][0] if played else 0
    # The first arrival finds the quota untouched, so only the time since then matters.
    assert admitted <= fresh.available(start, end)

    greedy = 0
    for now in range(start, end + 1):
        while fresh.wait(1, now) == 0:
            fresh.charge(1, now)
            greedy += 1
    assert greedy == copy.deepcopy(enforcer).available(start, end)


def test_a_clock_that_steps_back_changes_nothing() -> None:
    for enforcer in (TokenBucket(2, 10), FixedWindow(2, 10), RollingWindow(2, 10), SubWindows(2, 10, sub=5)):
        enforcer.charge(1, 103)
        before = enforcer.used(103), enforcer.wait(enforcer.largest, 103), enforcer.time_to_full(103)
        assert before == (enforcer.used(40), enforcer.wait(enforcer.largest, 40), enforcer.time_to_full(40))
        assert before[0] == 1


# All dimensions at once


def policy(**overrides: object) -> Policy:
    arguments: dict[str, object] = {
        "requests": 60,
        "tokens": 6000,
        "per": 60.0,
        "enforcement": "token_bucket",
        "burst": None,
        "sub_window": 1.0,
        "phase": 0.0,
        "failed_count": True,
    }
    return Policy(**(arguments | overrides))  # type: ignore[arg-type]


def refused(quota: Quota, cost: dict[str, int]) -> Refusal:
    refusal = quota.admit(cost, 0)
    assert refusal is not None
    return refusal


def cost(tokens: int) -> dict[str, int]:
    return {"requests": 1, "tokens": tokens}


@PROPERTY
@given(
    st.sampled_from(["token_bucket", "fixed_window", "rolling_window", "sub_window"]),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 5 * SECOND), st.integers(1, 120)), max_size=60),
)
def test_a_cost_is_charged_in_all_dimensions_or_in_none(enforcement: Any, failed_count: Any, schedule: Any) -> None:
    rules = policy(requests=6, tokens=200, per=10.0, enforcement=enforcement, failed_count=failed_count)
    quota = rules.new_quota()
    now = 0
    for gap, tokens in schedule:
        now += gap
        before = quota.levels(now)
        fits = quota.wait(cost(tokens), now) == 0
        had_request = copy.deepcopy(quota).wait({"requests": 1}, now) == 0
        refusal = quota.admit(cost(tokens), now)
        after = quota.levels(now)
        assert (refusal is None) == fits
        taken = {name: before[name].remaining - after[name].remaining for name in before}
        if refusal is None:
            assert taken == cost(tokens)
        else:
            assert taken == {"requests": int(failed_count and had_request), "tokens": 0}


def test_refused_for_tokens_uses_a_request_where_failures_count() -> None:
    for failed_count, left in ((True, 57), (False, 59)):
        quota = policy(failed_count=failed_count).new_quota()
        assert quota.admit(cost(6000), 0) is None
        assert refused(quota, cost(10)).dimension == "tokens"
        assert refused(quota, cost(7000)).wait is None
        assert quota.levels(0)["requests"].remaining == left


@pytest.mark.parametrize("enforcement", ["token_bucket", "fixed_window", "rolling_window", "sub_window"])
def test_hammering_does_not_lock_out(enforcement: Any) -> None:
    """A client that asks 50 times a second for what is admitted once a second gets all of it."""
    quota = policy(tokens=None, enforcement=enforcement).new_quota()
    admitted = sum(quota.admit(cost(1), step * SECOND // 50) is None for step in range(50 * 180))
    assert admitted >= 180


def test_the_longest_wait_is_stated() -> None:
    quota = policy(requests=2, tokens=100).new_quota()
    quota.admit(cost(50), 0)
    quota.admit(cost(50), 0)
    assert (refused(quota, cost(10)).dimension, refused(quota, cost(90)).dimension) == ("requests", "tokens")


def test_no_quota_admits_all() -> None:
    quota = policy(requests=None, tokens=None).new_quota()
    assert quota.admit(cost(10**12), 0) is None
    assert quota.levels(0) == {}
    quota.fail(0)


@pytest.mark.parametrize(
    ("rules", "seconds"),
    [
        ({"requests": 500, "tokens": None}, 60.0),  # 500 at once, 500 at 500 a minute
        ({"requests": 500, "tokens": None, "burst": 1}, 119.88),
        ({"requests": 500, "tokens": None, "enforcement": "fixed_window"}, 60.0),
        ({"requests": 500, "tokens": None, "enforcement": "fixed_window", "phase": 45.0}, 15.0),
        ({"requests": 500, "tokens": None, "enforcement": "rolling_window"}, 60.0),
        ({"requests": 600, "tokens": None, "enforcement": "sub_window"}, 99.0),  # 10 in each of 100 seconds
        ({"requests": None, "tokens": 20_000}, 240.0),
    ],
)
def test_optimum_of_a_thousand_calls_of_a_hundred_tokens(rules: Any, seconds: Any) -> None:
    assert policy(**rules).optimum([100] * 1000) == pytest.approx(seconds, abs=1e-6)


def test_optimum_of_what_is_never_admitted() -> None:
    with pytest.raises(ValueError, match=r"6001 tokens is too large for 60 requests and 6,000 tokens per 60 s"):
        policy().optimum([1, 6001])


# The words, against what real providers were recorded to say (facts: 12 of 15 messages obey the formula exactly)


@pytest.mark.parametrize(
    ("dimension", "limit", "per", "used", "requested", "wait"),
    [
        ("tokens", 30_000, MINUTE, 30_000, 154, "308ms"),
        ("tokens", 30_000, MINUTE, 30_000, 890, "1.78s"),
        ("tokens", 10_000, MINUTE, 8_554, 3_082, "9.816s"),
        ("requests", 3, MINUTE, 3, 1, "20s"),
        ("requests", 500, MINUTE, 500, 1, "120ms"),
        ("requests", 200, DAY, 200, 1, "7m12s"),
        ("tokens", 100_000, DAY, 98_485, 1_940, "6m7.2s"),
        ("tokens", 100_000, DAY, 97_644, 12_232, "2h22m12.864s"),
        ("tokens", 200_000, DAY, 195_139, 60_072, "6h37m31.152s"),
        ("tokens", 6_000, MINUTE, 5_243, 2_811, "20.54s"),
    ],
)
def test_refusals_say_what_real_ones_said(
    dimension: Any, limit: Any, per: Any, used: Any, requested: Any, wait: Any
) -> None:
    bucket = TokenBucket(limit, per)
    bucket.charge(used, 0)
    refusal = refused(Quota({dimension: bucket}, failed_count=False), {dimension: requested})
    message = refusal_message("gpt-4o", "org-1", refusal)
    period = {MINUTE: "min", DAY: "day"}[per]
    assert message == (
        f"Rate limit reached for gpt-4o in organization org-1 on {dimension} per {period} "
        f"({dimension[0].upper()}P{period[0].upper()}): Limit {limit}, Used {used}, Requested {requested}. "
        f"Please try again in {wait}. Visit https://platform.openai.com/account/rate-limits to learn more."
    )


def test_too_large_is_said_as_it_really_was() -> None:
    quota = Quota({"tokens": TokenBucket(30_000, MINUTE)}, failed_count=False)
    assert refusal_message("gpt-4o", "org-1", refused(quota, {"tokens": 151_125})) == (
        "Request too large for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Requested 151125. "
        "The input or output tokens must be reduced in order to run successfully."
    )


def test_a_request_above_the_burst_is_too_large() -> None:
    quota = Quota({"tokens": TokenBucket(30_000, MINUTE, burst=500)}, failed_count=False)
    assert (refused(quota, {"tokens": 501}).wait, refused(quota, {"tokens": 501}).limit) == (None, 500)


@pytest.mark.parametrize(
    ("dimension", "limit", "used", "reset"),
    [
        ("requests", 5_000, 1, "12ms"),
        ("tokens", 160_000, 24, "9ms"),
        ("tokens", 800_000, 14, "1ms"),
        ("tokens", 9, 0, "0s"),
        ("tokens", 800_000, 7, "1ms"),  # 0.525 ms
    ],
)
def test_headers_say_what_real_ones_said(dimension: Any, limit: Any, used: Any, reset: Any) -> None:
    bucket = TokenBucket(limit, MINUTE)
    bucket.charge(used, 0)
    assert quota_headers(Quota({dimension: bucket}, failed_count=True).levels(0)) == {
        f"x-ratelimit-limit-{dimension}": str(limit),
        f"x-ratelimit-remaining-{dimension}": str(limit - used),
        f"x-ratelimit-reset-{dimension}": reset,
    }
    assert quota_headers({dimension: Level(limit, 0, 360 * SECOND)})[f"x-ratelimit-reset-{dimension}"] == "6m0s"


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (7_440_000, "7.44ms"),
        (172_799_999, "172.799999ms"),
        (1_991_799_999, "1.991799999s"),
        (179_560_000_000, "2m59.56s"),
        (3_600 * SECOND, "1h0m0s"),
        (-20 * SECOND, "-20s"),
    ],
)
def test_go_duration(nanoseconds: Any, text: Any) -> None:
    assert go_duration(nanoseconds) == text


def test_retry_headers_round_up() -> None:
    assert retry_headers(308_000_001) == {"retry-after": "1", "retry-after-ms": "309"}


# Time that is drawn


def test_latencies_repeat_and_are_log_normal_about_the_median() -> None:
    draws = [latency.draw() for latency in [Latency(2.0, 0.5, seed=7)] for _ in range(4000)]
    again = Latency(2.0, 0.5, seed=7)
    assert draws == [again.draw() for _ in range(4000)]
    assert sorted(draws)[2000] == pytest.approx(2.0, rel=0.05)
    assert sum(draws) / 4000 == pytest.approx(2.0 * math.exp(0.5**2 / 2), rel=0.05)
    assert Latency(2.0, 0.5, seed=8).draw() != draws[0]
    assert {Latency(2.0, 0, seed=7).draw(), Latency(0, 1.0, seed=7).draw()} == {2.0, 0.0}


def test_network_jitter_is_uniform() -> None:
    jitter = NetworkJitter(0.3, seed=1)
    draws = [jitter.draw() for _ in range(4000)]
    assert 0 <= min(draws) < 0.01
    assert 0.29 < max(draws) <= 0.3
    assert NetworkJitter(0, seed=1).draw() == 0


# Bad input


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"requests": 0}, ValueError, "requests must be finite and at least 1, not 0"),
        ({"requests": -5}, ValueError, "requests must be finite and at least 1, not -5"),
        ({"tokens": math.nan}, ValueError, "tokens must be finite and at least 1, not nan"),
        ({"tokens": math.inf}, ValueError, "tokens must be finite and at least 1, not inf"),
        ({"tokens": 1.5}, ValueError, "tokens must be a whole number, not 1.5"),
        ({"tokens": "many"}, TypeError, "tokens must be a number, not 'many'"),
        ({"requests": True}, TypeError, "requests must be a number, not True"),
        ({"per": 0}, ValueError, "per must be finite and greater than 0, not 0"),
        ({"per": 1e-12}, ValueError, "per must be at least a nanosecond, not 1e-12"),
        ({"per": None}, TypeError, "per must be a number, not None"),
        ({"enforcement": "leaky"}, ValueError, "enforcement must be one of token_bucket, .*, not 'leaky'"),
        ({"enforcement": "sub_window", "sub_window": 7}, ValueError, "sub_window must divide per=60 s .*, not 7"),
        ({"burst": 10}, ValueError, "burst=10 is ambiguous with requests and tokens"),
        (
            {"burst": {"images": 3}},
            ValueError,
            "burst names 'images', which has no quota; there is requests and tokens",
        ),
        ({"burst": {"tokens": 0}}, ValueError, "burst of tokens must be finite and at least 1, not 0"),
        (
            {"burst": {"tokens": 5}, "enforcement": "fixed_window"},
            ValueError,
            "burst is the capacity of a token bucket",
        ),
        ({"phase": 60}, ValueError, "phase must be below per=60.0, not 60"),
        ({"phase": -1}, ValueError, "phase must be finite and at least 0, not -1"),
    ],
)
def test_bad_quotas_are_named(arguments: Any, error: Any, message: Any) -> None:
    with pytest.raises(error, match=message):
        policy(**arguments)


def test_whole_floats_are_amounts() -> None:
    assert policy(tokens=2e5).amounts == {"requests": 60, "tokens": 200_000}
