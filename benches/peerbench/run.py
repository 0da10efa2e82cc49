"""Runs the scenarios: each measurement in a process of its own, the limiters in turn."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peerbench.adapters import PEERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SCENARIOS = ("latency", "threads", "waiting", "pacing", "retry")

SPREADS = {1_000: 4, 10_000: 5, 100_000: 20, 1_000_000: 100}
"""How many tasks wait, and over how many seconds they are let through.

Long against the time it takes to enqueue them, so that they really wait all at once.
"""
BURST_SECONDS = 0.25
"""The burst while many wait, in seconds of the rate: more than the longest interval at which a peer polls, 0.2 s."""
PACING = {"amount": 50, "per": 1.0, "burst": 1}
PACED = 150
THREADS = 4
THREAD_CALLS = 20_000

Result = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What to run, how often and for how long."""

    peers: list[str]
    """The limiters."""
    retrying: list[str]
    """What the scenario `retry` compares."""
    scenarios: list[str]
    sizes: list[int]
    """How many tasks wait."""
    repeats: int
    """Runs of each measurement."""
    rounds: int
    """Samples of each uncontended call."""
    sample: float
    """Seconds of a sample."""
    faster: int
    """What the lengths of the runs are divided by."""

    @property
    def paced(self) -> int:
        """How many tasks wait for the slow rate."""
        return max(100, PACED // self.faster)

    @property
    def measured(self) -> list[str]:
        """Who takes part in the scenarios, in the order of the report."""
        limiters = self.peers if any(name != "retry" for name in self.scenarios) else []
        retrying = self.retrying if "retry" in self.scenarios else []
        return list(dict.fromkeys(limiters + retrying))


class MeasurementError(Exception):
    """A measurement that gave no result; the message says why."""


def say(text: str) -> None:
    """Tell on stderr how far it is; stdout has the tables."""
    print(f"{datetime.datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)


def measure(timeout: float, **arguments: object) -> Result:
    """Run one measurement in a process of its own."""
    command = [sys.executable, "-m", "peerbench.worker", json.dumps(arguments)]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"no answer within {timeout:.0f} s, killed") from None
    if done.returncode != 0 or not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or ["nothing on stderr"])[-1]
        raise MeasurementError(f"ended with status {done.returncode}: {last}")
    result: Result = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def in_turn(entrants: Sequence[tuple[str, ...]], repeats: int) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Each entrant once per repeat, beginning with another one each time."""
    for repeat in range(repeats):
        shift = repeat * len(entrants) // repeats
        for entrant in (*entrants[shift:], *entrants[:shift]):
            yield repeat, entrant


def collect(
    title: str, entrants: Sequence[tuple[str, ...]], repeats: int, task: Callable[[tuple[str, ...]], Result]
) -> list[Result]:
    """All results of the entrants, and an error in place of a result that could not be had."""
    results: list[Result] = []
    for repeat, entrant in in_turn(entrants, repeats):
        say(f"{title}, {' '.join(filter(None, entrant))}, {repeat + 1} of {repeats}")
        try:
            result = task(entrant)
        except MeasurementError as failed:
            result = {"error": str(failed)}
        results.append({"peer": entrant[0], "variant": entrant[1] if len(entrant) > 1 else "", **result})
    return results


def latency(plan: Plan) -> Result:
    """Time uncontended calls, all in one process, in turn."""
    say(f"latency, {plan.rounds} rounds")
    return measure(1800, task="latency", peers=plan.peers, repeats=plan.rounds, target=plan.sample)


def retry(plan: Plan) -> Result:
    """Time decorated calls that succeed at the first attempt, all in one process, in turn."""
    say(f"retry, {plan.rounds} rounds")
    return measure(600, task="retry", peers=plan.retrying, repeats=plan.rounds, target=plan.sample)


def threads(plan: Plan) -> list[Result]:
    """Race four threads on one limiter."""
    able = [(name,) for name in plan.peers if PEERS[name].threads(1) is not None]
    return collect(
        "threads",
        able,
        plan.repeats,
        lambda who: measure(120, task="threads", peer=who[0], threads=THREADS, calls=THREAD_CALLS),
    )


def waiters(plan: Plan) -> list[tuple[str, ...]]:
    """List peers and variants that can be waited for."""
    return [(name, variant) for name in plan.peers for variant in PEERS[name].waits()]


def waiting(plan: Plan) -> Result:
    """Let many tasks wait: paced, for time and order; parked, for memory."""
    results: Result = {}
    for size in plan.sizes:
        spread = max(2, SPREADS[size] // plan.faster)
        amount = size // spread
        limit = 2.5 * spread + 5
        paced = collect(
            f"{size:,} waiting",
            waiters(plan),
            plan.repeats,
            lambda who, size=size, amount=amount, limit=limit: measure(  # type: ignore[misc]
                2 * limit + 120,
                task="paced",
                peer=who[0],
                variant=who[1],
                count=size,
                amount=amount,
                per=1.0,
                burst=max(1, int(amount * BURST_SECONDS)),
                limit=limit,
            ),
        )
        parked = collect(
            f"{size:,} parked",
            waiters(plan),
            plan.repeats,
            lambda who, size=size: measure(  # type: ignore[misc]
                60 + size / 5000, task="parked", peer=who[0], variant=who[1], count=size
            ),
        )
        results[str(size)] = {"spread": spread, "amount": amount, "paced": paced, "parked": parked}
    return results


def pacing(plan: Plan) -> list[Result]:
    """Let tasks wait for a slow rate without a burst, where every late wake costs quota."""
    count = plan.paced
    limit = 5 * count / PACING["amount"]
    return collect(
        "pacing",
        waiters(plan),
        plan.repeats,
        lambda who: measure(limit + 60, task="paced", peer=who[0], variant=who[1], count=count, limit=limit, **PACING),
    )
