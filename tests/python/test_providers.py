"""`penstock.providers`: limiters shaped for how each provider counts, and what they find out when nobody tells them."""

from __future__ import annotations

import inspect
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import CostExceedsLimit, Limiter, Rate, providers
from penstock.testing import virtual_time

ALL = providers.__all__
#: Providers whose calls queue there: nothing paces them.
QUEUES = {"deepseek", "ollama", "vllm"}

CHAT = {
    "x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": "499", "x-ratelimit-reset-requests": "120ms",
    "x-ratelimit-limit-tokens": "200000", "x-ratelimit-remaining-tokens": "199000", "x-ratelimit-reset-tokens": "300ms",
}  # fmt: skip


def rates(limiter: Limiter) -> list[tuple[str, Rate]]:
    return [(level.dimension, level.rate) for level in limiter.stats().levels]


def amounts(limiter: Limiter) -> list[tuple[str, int, float]]:
    return [(dimension, rate.amount, rate.per) for dimension, rate in rates(limiter)]


@pytest.mark.parametrize("name", ALL)
def test_each_provider_makes_a_limiter(name: str) -> None:
    make = getattr(penstock.providers, name)
    limiter = make()
    assert isinstance(limiter, Limiter) and limiter.provider == name and limiter.counts
    assert amounts(limiter) == ([] if name in QUEUES else [("requests", 20, 60.0)])
    assert inspect.getdoc(make)
    more = make(name=f"my-{name}", concurrency=7, max_waiting=3, network_jitter=0.1, per_key={"concurrency": 2})
    assert (more.name, more.stats().concurrency) == (f"my-{name}", 7)
    numbers = [name for name, parameter in inspect.signature(make).parameters.items() if parameter.default is None]
    for number in numbers:
        assert rates(make(**{number: 600}))[0][1].amount == 600
        for wrong, error in [(0, ValueError), (1.5, ValueError), ("500", TypeError), (True, TypeError)]:
            with pytest.raises(error, match=f"{number} must be a whole number"):
                make(**{number: wrong})
    with pytest.raises(TypeError, match="rpx"):
        make(rpx=5)


def test_the_shapes_are_those_of_the_providers() -> None:
    # Buckets: requests paced by the second, tokens by ten, what is left of a day at once and refilled.
    openai = providers.openai(rpm=500, tpm=200_000, rpd=10_000, tpd=2_000_000)
    assert rates(openai) == [
        ("requests", Rate(500, 60, burst=8)),
        ("requests", Rate(10_000, 86_400, burst=10_000, window=False)),
        ("tokens", Rate(200_000, 60, burst=33_333)),
        ("tokens", Rate(2_000_000, 86_400, burst=2_000_000, window=False)),
    ]
    # Windows of 1 or 10 seconds inside the minute.
    assert rates(providers.azure_openai(rpm=600, tpm=100_000)) == [
        ("requests", Rate(600, 63, burst=1)),
        ("tokens", Rate(100_000, 60, burst=16_666)),
    ]
    assert rates(providers.anthropic(rpm=50, itpm=30_000, otpm=8_000)) == [
        ("requests", Rate(50, 60, burst=1)),
        ("input_tokens", Rate(30_000, 60, burst=5_000)),
        ("output_tokens", Rate(8_000, 60, burst=1_333)),
    ]
    # A day that ends at midnight is guarded.
    assert rates(providers.gemini(rpm=10, rpd=250)) == [
        ("requests", Rate(10, 60, burst=1)),
        ("requests", Rate(250, 86_400, burst=250)),
    ]
    assert rates(providers.mistral(rps=5)) == [("requests", Rate(5, 1, burst=1))]
    assert rates(providers.cohere(rpm=20, rpmonth=1_000))[1] == ("requests", Rate(1_000, 30 * 86_400, burst=1_000))
    assert (providers.ollama().stats().concurrency, providers.ollama(concurrency=4).stats().concurrency) == (1, 4)
    assert providers.vllm().stats().concurrency == 256


def test_limits_are_found_in_the_first_answer() -> None:
    limiter = providers.openai()
    with limiter.permit(tokens=1_000):
        limiter.observe(200, CHAT)
    assert amounts(limiter) == [("requests", 500, 60.0), ("tokens", 200_000, 60.0)]
    with pytest.raises(CostExceedsLimit):
        limiter.try_acquire(300_000)
    # They are followed down at once.
    limiter.observe(200, {**CHAT, "x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59"})
    assert amounts(limiter)[0] == ("requests", 60, 60.0)


def test_what_was_given_is_a_ceiling_and_what_was_not_is_found() -> None:
    limiter = providers.openai(rpm=60)
    limiter.observe(200, CHAT)
    assert amounts(limiter) == [("requests", 60, 60.0), ("tokens", 200_000, 60.0)]
    limiter.update(tokens=50_000)
    limiter.observe(200, CHAT)
    assert amounts(limiter)[1] == ("tokens", 50_000, 60.0)


def test_a_plain_limiter_finds_out_nothing() -> None:
    limiter = Limiter(concurrency=5)
    limiter.observe(200, CHAT)
    assert limiter.provider is None and amounts(limiter) == []


def test_before_the_first_answer_calls_leave_slowly() -> None:
    with virtual_time() as clock:
        limiter = providers.openai()
        begun = clock.now
        for _ in range(4):
            limiter.acquire().release()
        assert 5.9 < clock.now - begun < 6.1  # two at once, and one every three seconds
        limiter.observe(200, CHAT)
        begun = clock.now
        for _ in range(4):
            limiter.acquire().release()
        assert clock.now - begun < 0.1


def test_a_refusal_finds_what_no_answer_says() -> None:
    violation = {"quotaMetric": "generate_content_requests", "quotaId": "GenerateRequestsPerMinute", "quotaValue": "15"}
    body: dict[str, Any] = {
        "error": {
            "code": 429, "status": "RESOURCE_EXHAUSTED", "message": "You exceeded your current quota.",
            "details": [
                {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]},
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "20s"},
            ],
        }
    }  # fmt: skip
    limiter = providers.gemini()
    assert limiter.observe(429, {}, body).kind == "throttled"
    assert amounts(limiter) == [("requests", 15, 60.0)]


def test_what_a_provider_does_not_count_is_not_charged() -> None:
    limiter = providers.gemini(tpm=100_000)

    @limiter.limit(tokens=500)
    def call() -> Any:
        return {
            "usage_metadata": {"prompt_token_count": 300, "candidates_token_count": 9_000, "total_token_count": 9_300}
        }

    call()
    assert limiter.stats().levels[0].window == 100_000 - 300
    permit = limiter.acquire(100)
    permit.settle(tokens=700)
    assert permit.cost.tokens == 700  # whoever names no input means what is counted
    for make, tokens in [(providers.openai, 15), (providers.vertex, 10)]:
        permit = make().acquire()
        permit.settle(input_tokens=10, output_tokens=5)
        assert permit.cost.tokens == tokens


def test_answers_are_read_as_those_of_the_limiters_provider() -> None:
    # The same headers, but Groq's requests are per day.
    limiter = providers.groq()
    assert limiter.observe(200, {**CHAT, "x-ratelimit-reset-requests": "0s"}).provider == "groq"
    assert ("requests", 500, 86_400.0) in amounts(limiter)


def test_they_can_be_pickled() -> None:
    limiter = providers.anthropic(rpm=50, name="pickled-anthropic")
    again = pickle.loads(pickle.dumps(limiter))
    assert again is limiter
    assert type(limiter)(**limiter.given).provider == "anthropic"


@pytest.mark.skipif(sys.platform == "win32", reason="shared memory is for POSIX")
def test_what_one_process_finds_holds_for_all() -> None:
    one = f"""if True:
        import subprocess, sys
        from penstock import providers
        limiter = providers.openai(store="shm://providers-{os.getpid()}", tpm=50_000)
        def show():
            print([level.rate.amount for level in limiter.stats().levels], flush=True)
        show()
    """
    other = f"limiter.observe(200, {CHAT!r}); show()"
    # Processes of their own: this one's clock has been a virtual one.
    code = f"{one}\nsubprocess.run([sys.executable, '-c', {one + chr(10) + other!r}], check=True)\nshow()\n"
    run = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    for left in Path("/dev/shm").glob(f"penstock-*-providers-{os.getpid()}"):
        left.unlink()
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["[50000, 20]", "[50000, 20]", "[50000, 500]", "[50000, 500]"]


def test_an_unknown_provider_is_told() -> None:
    with pytest.raises(ValueError, match="provider must be one of openai, "):
        Limiter(provider="acme")
