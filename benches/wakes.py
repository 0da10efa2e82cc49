"""How long a call waits for another process to give back what it needs, and what waiting costs while nothing comes.

`python benches/wakes.py [ROUNDS]`: a process waits, in a thread or in an event loop, for a slot or for tokens that
another process has; from just before that one's release (or settlement) to the moment at which the call goes on. Each
with nobody else about, with two more processes that call the same limiter some 5,000 times a second each, and with one
and with two that do so all the time. Beside each what the machine itself needs to hand a byte to a thread of another
process, and from there to a second thread. Then the processor time of a process in which a call waits for ten seconds,
and nothing comes.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from penstock import Limiter, Permit, Rate, per_hour

WAITERS = ("thread", "loop")
CONTEXT: Any = multiprocessing.get_context("fork")


def limiter(store: str) -> Limiter:
    """One slot, tokens that do not come back by themselves, and as many requests as anyone makes."""
    return Limiter(requests=Rate(10**10, 60), tokens=per_hour(1_000, burst=1_000), concurrency=3, store=store)


def wait(store: str, waiter: str, tokens: int, line: Any) -> None:
    """Wait for a permit whenever told to, and say when it came."""
    gate = limiter(store)

    def given(permit: Permit) -> None:
        came = time.monotonic()
        permit.settle(tokens=0)
        permit.release()
        line.send(came)

    async def in_loop() -> None:
        while await asyncio.to_thread(line.recv):
            given(await gate.aacquire(tokens))

    if waiter == "loop":
        asyncio.run(in_loop())
    else:
        while line.recv():
            given(gate.acquire(tokens))


def call(store: str, pause: float) -> None:
    """Call the limiter ten times, again and again, without tokens."""
    gate = limiter(store)
    while True:
        for _ in range(10):
            permit = gate.try_acquire(requests=1)
            if permit is not None:
                permit.release()
        if pause:
            time.sleep(pause)


def measure(store: str, waiter: str, what: str, rounds: int) -> list[float]:
    """Give the seconds from what is given back to the call that goes on, of each round."""
    gate = limiter(store)
    here, there = CONTEXT.Pipe()
    process = CONTEXT.Process(target=wait, args=(store, waiter, 0 if what == "release" else 600, there), daemon=True)
    process.start()
    took: list[float] = []
    for _ in range(rounds):
        held = [gate.acquire(tokens) for tokens in ((0, 0, 0) if what == "release" else (600,))]
        here.send(True)
        until = time.monotonic() + 10
        while gate.stats().waiting == 0 and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(random.uniform(0.01, 0.05))
        began = time.monotonic()
        if what == "release":
            held[0].release()
        else:
            held[0].settle(tokens=0)
        took.append(here.recv() - began)
        for permit in held:
            permit.release()
    process.terminate()
    process.join()
    return took


def relay(line: Any) -> None:
    """Answer, from a second thread, what a first one hears."""
    lock = threading.Lock()
    lock.acquire()

    def hear() -> None:
        while line.recv():
            lock.release()

    threading.Thread(target=hear, daemon=True).start()
    while lock.acquire():
        line.send(time.monotonic())


def machine(rounds: int) -> list[float]:
    """Give the seconds of a wake without any limiter."""
    here, there = CONTEXT.Pipe()
    process = CONTEXT.Process(target=relay, args=(there,), daemon=True)
    process.start()
    took: list[float] = []
    for _ in range(rounds):
        time.sleep(random.uniform(0.01, 0.05))
        began = time.monotonic()
        here.send(True)
        took.append(here.recv() - began)
    process.kill()
    process.join()
    return took


def show(what: str, took: list[float]) -> None:
    """Print how long it took, in milliseconds."""
    took = sorted(1e3 * seconds for seconds in took)
    p50, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
    print(f"{what:32} median {p50:6.2f} ms, p99 {p99:6.2f} ms, longest {took[-1]:6.2f} ms", flush=True)


def idle(store: str, waiter: str, seconds: float) -> float:
    """Give the processor time that a process uses in which a call waits for so long."""
    gate = limiter(store)
    held = [gate.acquire() for _ in range(3)]
    here, there = CONTEXT.Pipe()

    def waits() -> None:
        own = limiter(store)

        async def in_loop() -> None:
            watched = asyncio.ensure_future(own.aacquire())
            await asyncio.sleep(0.5)
            before = time.process_time()
            await asyncio.sleep(seconds)
            there.send(time.process_time() - before)
            await watched

        def in_thread() -> None:
            threading.Thread(target=own.acquire, daemon=True).start()
            time.sleep(0.5)
            before = time.process_time()
            time.sleep(seconds)
            there.send(time.process_time() - before)

        asyncio.run(in_loop()) if waiter == "loop" else in_thread()

    process = CONTEXT.Process(target=waits, daemon=True)
    process.start()
    used = float(here.recv())
    process.kill()
    process.join()
    for permit in held:
        permit.release()
    return used


def main() -> None:
    """Measure all, and print a table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.NamedTemporaryFile(prefix="wakes") as unique:
        name = f"bench-{Path(unique.name).name.replace('_', '')}"
        store = f"shm://{name}"
        gate = limiter(store)
        try:
            for others, pause in ((0, 0.0), (2, 0.002), (1, 0.0), (2, 0.0)):
                processes = [CONTEXT.Process(target=call, args=(store, pause), daemon=True) for _ in range(others)]
                for process in processes:
                    process.start()
                how = f"with pauses of {1e3 * pause:.0f} ms" if pause else "all the time"
                print(f"{others} more processes at work, {how}" if others else "nobody else at work", flush=True)
                for waiter in WAITERS:
                    for what in ("release", "refund"):
                        show(f"  {what} wakes a {waiter}", measure(store, waiter, what, rounds))
                show("  the machine itself", machine(rounds))
                for process in processes:
                    process.kill()
                    process.join()
            for waiter in WAITERS:
                used = idle(store, waiter, 10)
                print(f"waiting for 10 s in a {waiter}: {1e3 * used:.1f} ms of processor time", flush=True)
        finally:
            del gate
            Path(f"/dev/shm/penstock-{os.geteuid()}-{name}").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
