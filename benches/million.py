"""A million tasks waiting on one limiter: time, memory, lateness. `python benches/million.py [TASKS]`, about a minute.

Every task waits for its turn at 50,000 per second, without the window guard, so that turns are evenly spaced; lateness
is counted from those. Memory is the growth of the process's resident set while all wait, the bare tasks' own included.
"""

import asyncio
import itertools
import resource
import sys
import time

from penstock import Limiter, Rate

PER_SECOND = 50_000


def resident() -> int:
    """Bytes of the process that are in memory."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


async def main(tasks: int) -> None:
    """Let them wait, and print what it took."""
    limiter = Limiter(requests=Rate(PER_SECOND, 1, burst=1, window=False))
    left: list[float] = []
    order: list[int] = []

    async def call(number: int) -> None:
        await limiter.aacquire()
        left.append(time.monotonic())
        order.append(number)

    before, cpu = resident(), time.process_time()
    began = time.monotonic()
    waiting = [asyncio.create_task(call(number)) for number in range(tasks)]
    await asyncio.sleep(0)
    enqueued, per_task = time.monotonic() - began, (resident() - before) / tasks
    await asyncio.gather(*waiting)
    took, cpu = time.monotonic() - began, time.process_time() - cpu
    # While a million tasks begin the loop is busy for seconds, of which a bare bucket makes up one. So turns count from
    # the median of those that left when all waited, and that second was made up.
    late = sorted(at - place / PER_SECOND for place, at in enumerate(left) if at > began + enqueued + 3)
    late = [lateness - late[len(late) // 2] for lateness in late]
    passed = sum(1 for one, other in itertools.pairwise(order) if other < one)
    print(
        f"{tasks:,} tasks: enqueued in {enqueued:.1f} s, done in {took:.1f} s (the rate takes {tasks / PER_SECOND:.1f})"
    )
    print(f"CPU {cpu / tasks * 1e6:.1f} us, {per_task:.0f} bytes a task, its own included; {passed} overtaken")
    if late:
        p50, p99 = (late[int(len(late) * share)] * 1e3 for share in (0.5, 0.99))
        print(f"late by {p50:.2f} ms (half), {p99:.2f} ms (99 %), {late[-1] * 1e3:.1f} ms (all)")


asyncio.run(main(int(sys.argv[1].replace("_", "")) if len(sys.argv) > 1 else 1_000_000))
