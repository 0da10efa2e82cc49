"""Uncontended calls: one admission with room, or one attempt that succeeds, in nanoseconds.

Each call is a statement, compiled into a loop of its own as `timeit` does, so that no function of ours stands between
the loop and the library. The calls are measured in turn, again and again, in one process: a slow moment of the machine
hits all of them. The cost of the empty loop, measured in the same turns, is taken off.
"""

from __future__ import annotations

import asyncio
import gc
import time
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peerbench.adapters import PEERS, RETRYING
from peerbench.peer import Call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_TEMPLATE = """
{kind} sample(number):
    start = clock()
    for _ in range(number):
        {statement}
    return clock() - start
"""


@dataclass
class _Timed:
    peer: str
    call: Call
    sample: Callable[[int], Awaitable[float]]
    number: int = 1
    samples: list[float] = field(default_factory=list)
    error: str | None = None


def _compile(call: Call) -> Callable[[int], Awaitable[float]]:
    """Put the statement in a loop, as a coroutine function that gives the seconds it took."""
    names = call.names()
    waits = "await " in call.statement or "async " in call.statement
    source = _TEMPLATE.format(kind="async def" if waits else "def", statement=call.statement)
    names["clock"] = time.perf_counter
    exec(compile(source, f"<{call.statement}>", "exec"), names)
    sample = names["sample"]
    assert callable(sample)
    if waits:
        return sample

    async def run(number: int) -> float:
        elapsed: float = sample(number)
        return elapsed

    return run


async def _calibrate(timed: _Timed, target: float) -> None:
    """Choose how many calls make a sample of `target` seconds, and keep the error of a call that fails."""
    try:
        await timed.sample(3)  # whatever the first calls set up, and the first wait of a bucket that starts empty
        while (elapsed := await timed.sample(timed.number)) < target / 4:
            timed.number *= 2
    except Exception as error:  # a peer that fails is shown with its error, and the others still measured
        timed.error = f"{type(error).__name__}: {error}"
    else:
        timed.number = max(1, round(timed.number * target / elapsed))


async def _measure(calls: list[tuple[str, Call]], repeats: int, target: float) -> list[_Timed]:
    empty_loop = Call("await", "pass", dict)
    timed = [_Timed("", empty_loop, _compile(empty_loop))]
    timed += [_Timed(name, call, _compile(call)) for name, call in calls]
    for one in timed:
        await _calibrate(one, target)
    failed = [one for one in timed if one.error is not None]
    timed = [one for one in timed if one.error is None]
    gc.collect()
    gc.freeze()
    gc.disable()  # as timeit does; the garbage is collected between rounds
    for turn in range(repeats):
        shift = turn % len(timed)
        for one in timed[shift:] + timed[:shift]:
            one.samples.append(await one.sample(one.number) / one.number)
        gc.collect()
    return timed + failed


def admissions(peers: list[str], repeats: int, target: float) -> dict[str, object]:
    """Measure every uncontended call of the peers; `target` is the length of one sample in seconds."""
    return _run([(name, call) for name in peers for call in PEERS[name].calls()], repeats, target)


def retries(peers: list[str], repeats: int, target: float) -> dict[str, object]:
    """Measure what a decorator that retries costs a call that succeeds; `target` as above."""
    return _run([(name, call) for name in peers for call in RETRYING[name].retries()], repeats, target)


def _run(calls: list[tuple[str, Call]], repeats: int, target: float) -> dict[str, object]:
    """Measure calls, each with the name of its peer. Times are in nanoseconds."""
    warnings.simplefilter("ignore")  # a library's deprecations are not our subject
    timed = asyncio.run(_measure(calls, repeats, target))
    loop = min(min(one.samples) for one in timed if not one.peer)
    return {
        "loop_ns": loop * 1e9,
        "calls": [
            {
                "peer": one.peer,
                "case": one.call.case,
                "variant": one.call.variant,
                "dimensions": one.call.dimensions,
                "statement": one.call.statement,
                "number": one.number,
                "error": one.error,
                "ns": [max(0.0, sample - loop) * 1e9 for sample in one.samples],
            }
            for one in timed
            if one.peer
        ],
    }
