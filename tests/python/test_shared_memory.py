"""Several processes, one quota: limits, fairness, wakes, and processes that are killed, stopped, forked and replaced.

Nothing here is judged by a tight clock: limits by the union of what all processes logged, shares by counts.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs, no-check-untyped-defs

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from sharing import SOAK, fresh_store, most_in_any, path_of, saturate
from waiting import run, until

from penstock import AcquireTimeout, Limiter, QuotaExhausted, Rate, StoreUnavailable, per_minute, per_second

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

FORK = multiprocessing.get_context("fork") if hasattr(os, "fork") else None


@pytest.fixture
def store():
    with fresh_store() as url:
        yield url


def file_of(store):
    return path_of(store.removeprefix("shm://"))


@contextlib.contextmanager
def worker(main, *arguments):
    """A process that is killed at the end, if it still runs. What it puts into the queue is given with it."""
    queue = FORK.Queue()
    process = FORK.Process(target=main, args=(*arguments, queue))
    process.start()
    try:
        yield process, queue
    finally:
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()


def hold(store, limits, permits, queue):
    gate = Limiter(store=store, **limits)
    held = [gate.acquire() for _ in range(permits)]
    queue.put(len(held))
    signal.pause()


def ask(store, limits, queue):
    gate = Limiter(store=store, **limits)
    queue.put("asks")
    with gate.permit():
        queue.put(time.monotonic())
    signal.pause()


# Limits


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.timeout(200)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_fifty_a_second_are_kept_and_shared_evenly(store, method) -> None:
    """Eight processes, half of them tasks and half threads; they have the same share to within a tenth."""
    seconds = 30 if SOAK else 8
    logs, stood = saturate(store, (50, 1), seconds, method=method, network_jitter=0.2)
    union = [entry for log in logs for entry in log]
    assert most_in_any(union, 1) <= 50
    # A window of 1.2 seconds takes 50; the last may be cut off.
    begin, end = min(union)[0], max(union)[0]
    assert len(union) >= int((end - begin) / 1.2 - stood) * 50
    # While all wait: the first burst is of who came first, and the last window of who gives up last.
    parts = [sum(begin + 1 < time_ < begin + seconds - 1.3 for time_, _ in log) for log in logs]
    share = sum(parts) / len(parts)
    print(f"shares {parts}")
    assert all(abs(own - share) <= max(share / 10, 2) + 50 * stood for own in parts), (parts, stood)


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.timeout(200)
def test_a_hundred_thousand_a_second_are_kept(store) -> None:
    seconds, costs = (30, (10, 10)) if SOAK else (4, (1, 400))
    logs, stood = saturate(store, (100_000, 1), seconds, costs=costs, network_jitter=0.2)
    union = [entry for log in logs for entry in log]
    assert most_in_any(union, 1) <= 100_000
    assert all(logs)
    if SOAK:
        begin = min(union)[0]
        parts = [sum(cost for time_, cost in log if begin + 1 < time_ < begin + seconds - 1.3) for log in logs]
        share = sum(parts) / len(parts)
        print(f"shares {parts}")
        assert all(abs(own - share) <= share / 10 + 100_000 * stood for own in parts), (parts, stood)


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.timeout(200)
@pytest.mark.parametrize("amount", [50, 100_000])
def test_without_a_window_just_what_flows_in_leaves(store, amount) -> None:
    """To a thousandth: the burst at once, and the rate from there on."""
    seconds, costs = (30, (1, 1) if amount == 50 else (10, 10)) if SOAK else (4, (1, max(amount // 250, 1)))
    logs, stood = saturate(store, (amount, 1), seconds, costs=costs, burst=amount // 50, window=False)
    union = [entry for log in logs for entry in log]
    begin, end, left = min(union)[0], max(union)[0], sum(cost for _, cost in union)
    flowed_in = amount // 50 + amount * (end - begin)
    print(f"left {left} of {flowed_in:.1f}: {left / flowed_in:.5f}")
    assert left <= flowed_in * 1.001 + 1
    # On a machine that is busy a wake may be late by more than the burst, and what flows over is lost.
    assert left >= (flowed_in * 0.999 - costs[1] if SOAK else flowed_in * 0.5 - amount * stood)
    if SOAK:
        parts = [sum(cost for time_, cost in log if time_ > begin + 1) for log in logs]
        share = sum(parts) / len(parts)
        assert all(abs(own - share) <= share / 10 + amount * stood for own in parts), (parts, stood)


@pytest.mark.slow
@pytest.mark.once
def test_within_a_process_who_came_first_leaves_first(store) -> None:
    """While others are saturated, too, and whoever is due leaves in a batch."""
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()

    def work(number):
        gate = Limiter(requests=Rate(500, 1, burst=25, window=False), store=store)
        order = []

        async def call(place):
            (await gate.aacquire()).release()
            order.append(place)

        def calls(place):
            gate.acquire().release()
            order.append(place)

        async def main():
            await asyncio.gather(*(call(place) for place in range(250)))

        barrier.wait()
        if number % 2:
            asyncio.run(main())
        else:
            threads = [threading.Thread(target=calls, args=(place,)) for place in range(60)]
            for place, thread in enumerate(threads):
                thread.start()
                until(lambda place=place: len(order) + gate.stats().waiting > 0 or len(order) > place)
            for thread in threads:
                thread.join()
        results.put((number, order))

    workers = [context.Process(target=work, args=(number,)) for number in range(4)]
    for process in workers:
        process.start()
    orders = dict(results.get(timeout=50) for _ in workers)
    for process in workers:
        process.join()
    for number in (1, 3):
        assert orders[number] == sorted(orders[number])


def test_two_limiters_of_one_name_in_one_process_share(store) -> None:
    one, two = (Limiter(requests=per_minute(10, burst=10), concurrency=5, store=store) for _ in range(2))
    permits = [one.acquire() for _ in range(3)] + [two.acquire() for _ in range(2)]
    assert one.try_acquire() is None
    assert two.try_acquire() is None
    assert (one.stats().in_flight, two.stats().granted) == (5, 5)
    permits[0].release()
    assert two.try_acquire() is not None
    del permits
    assert one.stats().in_flight == 0
    assert [level.window for level in two.stats().levels] == [4]


def test_what_was_charged_outlives_those_who_were_charged(store) -> None:
    """A cron job that runs again goes on where it left off."""
    code = (
        f"from penstock import Limiter, per_hour; g = Limiter(requests=per_hour(5, burst=5), store={store!r}); "
        "print(sum(g.try_acquire() is not None for _ in range(3)))"
    )
    assert [run(code).strip() for _ in range(3)] == ["3", "2", "0"]


# What is shared besides


def test_what_one_is_told_all_obey(store) -> None:
    one, two = (Limiter(requests=per_minute(600, burst=600), store=store) for _ in range(2))
    one.observe(200, {"x-ratelimit-limit-requests": "60"}, None)
    assert two.stats().levels[0].rate.amount == 60
    one.update(requests=per_minute(120, burst=120))
    assert two.stats().levels[0].rate.amount == 120
    assert sum(two.try_acquire() is not None for _ in range(200)) == 120
    one.cooldown(30)
    assert 25 < two.stats().cooldown <= 30
    one.update(requests=None)
    one.observe(429, {}, {"error": {"code": "insufficient_quota", "message": "..."}})
    with pytest.raises(QuotaExhausted):
        two.try_acquire() or two.acquire()
    assert one.stats()._replace(cooldown=0) == two.stats()._replace(cooldown=0)


def test_who_waits_elsewhere_hears_of_news(store) -> None:
    gate = Limiter(concurrency=1, store=store)
    permit = gate.acquire()

    def wait(queue):
        own = Limiter(concurrency=1, store=store)
        queue.put("asks")
        try:
            own.acquire()
        except QuotaExhausted:
            queue.put("spent")

    with worker(wait) as (_, queue):
        assert queue.get(timeout=20) == "asks"
        until(lambda: gate.stats().waiting == 1)
        gate.observe(429, {}, {"error": {"code": "insufficient_quota", "message": "..."}})
        assert queue.get(timeout=20) == "spent"
    permit.release()


@pytest.mark.parametrize("what", ["release", "refund", "update"])
def test_another_process_wakes_who_waits(store, what) -> None:
    limits = {"tokens": per_minute(100, burst=100)} if what == "refund" else {"concurrency": 1}
    gate = Limiter(store=store, **limits)
    permit = gate.acquire(tokens=100)

    def wait(queue):
        own = Limiter(store=store, **limits)

        async def main():
            queue.put("asks")
            (await own.aacquire(tokens=50)).release()
            queue.put(time.monotonic())

        asyncio.run(main())

    with worker(wait) as (_, queue):
        assert queue.get(timeout=20) == "asks"
        until(lambda: gate.stats().waiting == 1)
        began = time.monotonic()
        if what == "release":
            permit.release()
        elif what == "refund":
            permit.settle(tokens=10)
        else:
            gate.update(concurrency=2)
        assert queue.get(timeout=20) - began < 5  # 20 ms on a machine that has nothing else to do; see the benches


@pytest.mark.slow
@pytest.mark.once
def test_wakes_are_quick_and_nobody_polls_for_them(store) -> None:
    """By the median, since any wake may be late on a machine that is busy: a fifth of a second would be polling."""
    gate = Limiter(concurrency=1, store=store)

    def wait(queue):
        own = Limiter(concurrency=1, store=store)
        for _ in range(15):
            with own.permit():
                queue.put(time.monotonic())
            until(lambda: own.stats().in_flight == 1)
        before = time.process_time()
        with contextlib.suppress(AcquireTimeout):
            own.acquire(timeout=1.5)
        queue.put(time.process_time() - before)

    permit = gate.acquire()
    with worker(wait) as (_, queue):
        took = []
        for _ in range(15):
            until(lambda: gate.stats().waiting == 1)
            began = time.monotonic()
            permit.release()
            took.append(queue.get(timeout=20) - began)
            permit = gate.acquire(timeout=20)
        assert sorted(took)[7] < 0.1, took
        assert queue.get(timeout=20) < 0.3
    permit.release()


# Processes that end


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.timeout(600)
def test_whoever_is_killed_gives_its_slots_back(store) -> None:
    """Rounds of SIGKILL for some of eight processes that hold permits, at any instruction of theirs."""
    chance = random.Random(6)
    gate = Limiter(requests=Rate(10**9, 1), concurrency=16, store=store)

    def work(queue):
        own = Limiter(requests=Rate(10**9, 1), concurrency=16, store=store)
        queue.put("works")
        held = []
        while True:
            if len(held) < 2:
                with contextlib.suppress(AcquireTimeout):
                    held.append(own.acquire(timeout=0.01))
            else:
                held.pop(0).release()

    for _ in range(200 if SOAK else 8):
        with contextlib.ExitStack() as stack:
            workers = [stack.enter_context(worker(work)) for _ in range(8)]
            for _, queue in workers:
                assert queue.get(timeout=30) == "works"
            for _ in range(5):
                assert gate.stats().in_flight <= 16
                time.sleep(chance.random() / 100)
            dead = chance.sample(workers, chance.randint(1, 7))
            for process, _ in dead:
                os.kill(process.pid, signal.SIGKILL)
            for _ in range(3):
                gate.acquire(timeout=30).release()  # those who live go on
            for process, _ in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            began = time.monotonic()
            permits = [gate.acquire(timeout=30) for _ in range(16)]
            assert time.monotonic() - began < 10  # a second on a machine that has nothing else to do
            assert gate.try_acquire() is None
            for permit in permits:
                permit.release()
    assert gate.stats().in_flight == 0


def test_a_zombie_holds_nothing(store) -> None:
    gate = Limiter(concurrency=1, store=store)
    with worker(hold, store, {"concurrency": 1}, 1) as (process, queue):
        assert queue.get(timeout=20) == 1
        assert gate.try_acquire() is None
        os.kill(process.pid, signal.SIGKILL)  # and nobody asks how it ended
        gate.acquire(timeout=20).release()
        os.kill(process.pid, 0)  # the number still names it


def test_who_is_stopped_keeps_its_permits(store) -> None:
    gate = Limiter(concurrency=2, store=store)
    with worker(hold, store, {"concurrency": 2}, 1) as (process, queue):
        assert queue.get(timeout=20) == 1
        os.kill(process.pid, signal.SIGSTOP)
        permit = gate.acquire(timeout=20)
        with pytest.raises(AcquireTimeout):
            gate.acquire(timeout=0.7)
        os.kill(process.pid, signal.SIGCONT)
        os.kill(process.pid, signal.SIGKILL)
        gate.acquire(timeout=20).release()
        permit.release()


@pytest.mark.slow
@pytest.mark.once
def test_nobody_waits_for_who_is_stopped_in_the_middle_of_a_decision(store) -> None:
    """Stopped at any instruction, with the lock or without: others go on, and when it goes on nothing is torn."""
    limits = {"requests": Rate(10**9, 1), "tokens": Rate(10**9, 1), "concurrency": 64}
    gate = Limiter(store=store, **limits)

    def work(queue):
        own = Limiter(store=store, **limits)
        queue.put("works")
        while True:
            own.acquire(tokens=100).release()

    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(worker(work)) for _ in range(3)]
        for _, queue in workers:
            assert queue.get(timeout=20) == "works"
        chance = random.Random(7)
        for _ in range(300 if SOAK else 40):
            process, _ = chance.choice(workers)
            time.sleep(chance.random() / 200)
            os.kill(process.pid, signal.SIGSTOP)
            for _ in range(5):
                gate.acquire(tokens=10, timeout=20).release()
            os.kill(process.pid, signal.SIGCONT)
        for process, _ in workers:
            os.kill(process.pid, signal.SIGKILL)
        permits = [gate.acquire(timeout=20) for _ in range(64)]
        assert gate.try_acquire() is None
        del permits
    assert gate.stats().in_flight == 0


def test_a_process_that_ends_while_it_waits_is_waited_for_by_nobody(store) -> None:
    limits = {"requests": per_second(5, burst=1), "network_jitter": 0.01, "concurrency": 1}
    gate = Limiter(store=store, **limits)
    permit = gate.acquire()
    with worker(ask, store, limits) as (process, queue):
        assert queue.get(timeout=20) == "asks"
        until(lambda: gate.stats().waiting == 1)
        os.kill(process.pid, signal.SIGKILL)
        permit.release()
        for _ in range(3):
            gate.acquire(timeout=20).release()
    assert gate.stats().waiting == 0


# Forks and threads


def in_child(work) -> None:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(50)
            work()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_fork_is_another_member(store) -> None:
    gate = Limiter(requests=per_minute(10, burst=10), concurrency=3, store=store)
    permit = gate.acquire()

    def child():
        permit.release()  # the parent's
        own = [gate.acquire(), gate.acquire()]
        assert gate.try_acquire() is None
        assert gate.stats().in_flight == 3
        own[0].release()
        # the other is not given back: this process ends

    in_child(child)
    assert len([gate.acquire(timeout=20), gate.acquire(timeout=20)]) == 2
    assert gate.stats().levels[0].window == 5
    permit.release()
    assert gate.stats().in_flight == 0


def test_a_fork_that_waits_is_woken(store) -> None:
    gate = Limiter(concurrency=1, store=store)
    permit = gate.acquire()
    waiting = threading.Thread(target=lambda: gate.acquire(timeout=30).release())  # so that threads of ours run
    waiting.start()
    until(lambda: gate.stats().waiting == 1)
    reader, writer = os.pipe()

    def child():
        os.write(writer, b"x")
        gate.acquire(timeout=20).release()
        asyncio.run(again())

    async def again():
        (await gate.aacquire(timeout=20)).release()

    releasing = threading.Thread(target=lambda: (os.read(reader, 1), time.sleep(0.2), permit.release()))
    releasing.start()
    in_child(child)
    waiting.join()
    releasing.join()
    assert gate.stats().in_flight == 0


def test_a_wait_imports_nothing(store) -> None:
    """A child that is forked while a thread imports a module waits for that for ever, if it needs the module, too."""
    code = f"""
import sys, threading, time
from penstock import Limiter
gate = Limiter(concurrency=1, store={store!r})
before = set(sys.modules)
permit = gate.acquire()
waiting = threading.Thread(target=lambda: gate.acquire().release())
waiting.start()
while gate.stats().waiting == 0:
    time.sleep(0.001)
permit.release()
waiting.join()
print(sorted(set(sys.modules) - before))
"""
    assert run(code) == "[]\n"


@pytest.mark.slow
def test_forks_while_threads_are_at_work(store) -> None:
    gate = Limiter(requests=Rate(10**9, 1), concurrency=4, store=store)
    ends = threading.Event()

    def work():
        while not ends.is_set():
            with gate:
                pass

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            in_child(lambda: [gate.acquire(timeout=20).release() for _ in range(20)])
    finally:
        ends.set()
        for thread in threads:
            thread.join()
    until(lambda: gate.stats().in_flight == 0)


def test_an_interpreter_that_exits_while_calls_wait(store) -> None:
    gate = Limiter(concurrency=1, store=store)
    permit = gate.acquire()
    code = (
        "import threading, time; from penstock import Limiter; "
        f"gate = Limiter(concurrency=1, store={store!r}); "
        "threads = [threading.Thread(target=gate.acquire, daemon=True) for _ in range(3)]; "
        "[thread.start() for thread in threads]; time.sleep(0.3); print('ends')"
    )
    assert run(code) == "ends\n"
    permit.release()
    until(lambda: gate.stats().waiting == 0)


def test_a_pickle_in_a_worker_shares(store) -> None:
    gate = Limiter(requests=per_minute(10, burst=10), store=store)
    gate.update(requests=per_minute(8, burst=8))
    gate.acquire().release()
    code = f"import pickle; gate = pickle.loads({pickle.dumps(gate)!r}); gate.acquire().release(); print(gate.name)"
    assert run(code).strip() == store.removeprefix("shm://")
    assert gate.stats().levels[0].window == 6


# The file


def test_the_file_is_for_its_owner_alone(store) -> None:
    gate = Limiter(requests=5, store=store)
    assert file_of(store).stat().st_mode & 0o777 == 0o600
    assert gate.name == store.removeprefix("shm://")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", "-x", "a b", "ä", "x" * 101, "a\0b"])
def test_a_name_cannot_lead_elsewhere(name) -> None:
    with pytest.raises(ValueError, match="1 to 100 letters"):
        Limiter(store=f"shm://{name}")


@pytest.mark.parametrize("url", ["shm:", "file://x", "memory://x", "SHM://x", ""])
def test_a_store_that_is_not_known(url) -> None:
    with pytest.raises(ValueError, match="store must be memory://, shm://NAME"):
        Limiter(store=url)


def test_keys_with_limits_of_their_own_are_refused(store) -> None:
    with pytest.raises(ValueError, match="per_key"):
        Limiter(store=store, per_key={"requests": 5})
    with pytest.raises(ValueError, match="16 rates at the most"):
        Limiter(store=store, requests=[per_second(number) for number in range(1, 18)])
    gate = Limiter(store=store, requests=[per_second(number) for number in range(1, 16)])
    with pytest.raises(ValueError, match="16 rates at the most"):
        gate.update(tokens=[per_second(1), per_second(2)])
    gate.update(tokens=per_second(1))
    assert len(gate.stats().levels) == 16


def test_other_limits_are_a_conflict_that_is_decided(store) -> None:
    first = Limiter(requests=60, concurrency=4, store=store)
    with pytest.raises(ValueError, match=r"requests 60/min.*concurrency 4.*requests 90/min.*on_conflict"):
        Limiter(requests=90, store=store)
    kept = Limiter(requests=90, store=store, on_conflict="keep")
    assert (kept.stats().levels[0].rate.amount, kept.stats().concurrency) == (60, 4)
    first.acquire().release()
    replaced = Limiter(requests=90, tokens=7, store=store, on_conflict="replace")
    for gate in (first, kept, replaced):
        stats = gate.stats()
        assert [level.rate.amount for level in stats.levels] == [90, 7]
        assert stats.concurrency is None
        assert stats.levels[0].window == 89
    with pytest.raises(ValueError, match='"error" or "keep" or "replace"'):
        Limiter(store=store, on_conflict="maybe")


def test_nobody_is_left_to_conflict_with(store) -> None:
    """A deployment with new limits does not stumble over those of one that has ended."""
    run(f"from penstock import Limiter; Limiter(requests=60, store={store!r}).acquire()")
    gate = Limiter(requests=90, store=store)
    assert gate.stats().levels[0].window == 89


DAMAGE = {
    "truncated": (lambda file: file.truncate(5_000), "truncated: 5000 bytes"),
    "foreign": (lambda file: file.write(b"#!/bin/sh\n"), "not a limiter's"),
    "of another layout": (lambda file: (file.seek(8), file.write(b"\x07")), "layout is number 7"),
    "of rates that cannot be": (lambda file: (file.seek(64 * 8), file.write(b"\xff" * 2_048)), "rates cannot be"),
    "overwritten": (lambda file: (file.seek(12_288 * 8 + 8_192), file.write(b"\xa5" * 16_384)), "cannot be"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_told_with_what_to_do(store, damage) -> None:
    run(f"from penstock import Limiter; Limiter(requests=60, concurrency=3, store={store!r}).acquire()")
    spoil, message = DAMAGE[damage]
    with file_of(store).open("r+b") as file:
        spoil(file)
    with pytest.raises(StoreUnavailable, match=message) as told:
        Limiter(requests=60, concurrency=3, store=store)
    assert f"{file_of(store)}" in str(told.value)
    assert "delete the file" in str(told.value)
    file_of(store).unlink()
    assert Limiter(requests=60, concurrency=3, store=store).try_acquire() is not None


def test_random_damage_is_an_error_or_none_but_never_a_crash(store) -> None:
    code = (
        "import sys; from penstock import Limiter, StoreUnavailable\n"
        "try:\n"
        f"    gate = Limiter(requests=60, tokens=9, concurrency=3, store={store!r}, on_conflict='replace')\n"
        "    gate.try_acquire(3); gate.stats(); gate.update(requests=70); gate.try_acquire()\n"
        "except (StoreUnavailable, ValueError) as error: print(type(error).__name__)\n"
    )
    chance = random.Random(8)
    for _ in range(6):
        run(code)
        with file_of(store).open("r+b") as file:
            for _ in range(40):
                file.seek(chance.randrange(12_288 * 8 + 24_576))
                file.write(chance.randbytes(chance.randint(1, 64)))
        run(code)
        file_of(store).unlink(missing_ok=True)


def test_a_file_that_others_may_read_is_refused(store) -> None:
    file = file_of(store)
    file.touch(0o600)
    file.chmod(0o644)
    with pytest.raises(StoreUnavailable, match="mode 644; it must be 600"):
        Limiter(store=store)
    file.unlink()


@pytest.mark.parametrize("planted", ["symlink", "fifo", "directory", "hard link", "another user's"])
def test_what_is_planted_under_the_name_is_refused(store, planted, tmp_path) -> None:
    """Where anyone may write, as in `/dev/shm`: nothing is followed, waited for or written to."""
    file, own = file_of(store), file_of(store + "-own")
    message = "not a regular file"
    own.touch(0o600)
    try:
        if planted == "symlink":
            file.symlink_to(own)
        elif planted == "fifo":
            os.mkfifo(file, 0o600)
        elif planted == "directory":
            file.mkdir(0o700)
        elif planted == "hard link":
            file.hardlink_to(own)
            message = "it has 2 names"
        elif os.geteuid() == 0:
            file.touch(0o600)
            os.chown(file, 12_345, 12_345)
            message = f"belongs to user 12345, and this process runs as {os.geteuid()}"
        else:
            pytest.skip("only root may give a file away")
        with pytest.raises(StoreUnavailable, match=message):
            Limiter(store=store)
        assert own.stat().st_size == 0
    finally:
        own.unlink()
        if planted == "directory":
            file.rmdir()


def test_whatever_the_umask_the_owner_may_use_it(store) -> None:
    run(f"import os; os.umask(0o777); from penstock import Limiter; Limiter(requests=5, store={store!r}).acquire()")
    assert file_of(store).stat().st_mode & 0o777 == 0o600
    assert Limiter(requests=5, store=store).stats().levels[0].window == 4


def test_a_file_that_was_never_finished_is_made(store) -> None:
    file_of(store).touch(0o600)
    assert Limiter(requests=5, store=store).try_acquire() is not None


def test_times_of_another_boot_are_forgotten(store) -> None:
    run(f"from penstock import Limiter; g = Limiter(requests=5, store={store!r}); print(g.acquire())")
    with file_of(store).open("r+b") as file:
        file.seek(16)
        file.write(b"another boot....")
    assert Limiter(requests=5, store=store).stats().levels[0].window == 5


def test_who_closes_a_descriptor_of_the_file_lives_on(store) -> None:
    """That lets go of the locks by which a process lives; the next call takes them again."""
    gate = Limiter(concurrency=2, store=store)
    permit = gate.acquire()
    file_of(store).open().close()
    code = (
        f"from penstock import Limiter; gate = Limiter(concurrency=2, store={store!r}); "
        "import time; time.sleep(0.3); one = gate.acquire(); two = gate.try_acquire(); print(gate.stats().in_flight)"
    )
    run(code)
    another = gate.acquire()
    assert gate.stats().in_flight == 2
    assert gate.try_acquire() is None
    permit.release()
    another.release()
    assert gate.stats().in_flight == 0


def test_who_lost_its_locks_shares_its_number_with_nobody(store) -> None:
    """Before it has noticed, another process becomes a member of the number that it had."""
    gate = Limiter(concurrency=1, store=store)
    file_of(store).open().close()

    def newcomer(queue):
        own = Limiter(concurrency=1, store=store)
        queue.put("there")
        assert gate_has_it.wait(20)
        with contextlib.suppress(AcquireTimeout):
            own.acquire(timeout=1)  # it asks whether others live, several times
            queue.put("over")
        queue.put("full")

    gate_has_it = FORK.Event()
    with worker(newcomer) as (_, queue):
        assert queue.get(timeout=20) == "there"
        permit = gate.acquire(timeout=20)
        gate_has_it.set()
        assert queue.get(timeout=20) == "full"
    permit.release()


def test_memory_that_nobody_here_uses_any_more_is_let_go(store) -> None:
    run(
        f"""
import contextlib, gc, os, threading, time
from penstock import Limiter

def here():
    with open("/proc/self/maps") as maps:
        files = sum("/penstock-" in line for line in maps)
    names = []
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/self/task/{{task}}/comm") as name:
            names.append(name.read())
    return files, names.count("penstock-watch\\n")

def use(name):
    gate = Limiter(concurrency=1, store=f"{store}-{{name}}")
    held = gate.acquire()
    waiting = threading.Thread(target=lambda: gate.acquire().release())
    waiting.start()
    while gate.stats().waiting == 0:
        time.sleep(0.001)
    held.release()
    waiting.join()

for name in range(5):
    use(name)
gc.collect()
deadline = time.monotonic() + 30
while True:  # the threads end when they have noticed, and then the next limiter lets go
    last = Limiter(store="{store}")
    if here() == (1, 0):
        break
    assert time.monotonic() < deadline, here()
    time.sleep(0.001)
for name in range(5):
    os.unlink(f"{file_of(store)}-{{name}}")
"""
        if sys.platform == "linux"
        else ""
    )


def test_many_members_come_and_go(store) -> None:
    gates = [Limiter(concurrency=200, store=store) for _ in range(150)]
    permits = [gate.acquire() for gate in gates]
    assert gates[0].stats().in_flight == 150
    del permits
    gates = gates[:1]
    more = [Limiter(concurrency=200, store=store) for _ in range(150)]
    assert more[-1].stats().in_flight == 0


def test_the_memory_of_another_clock_is_refused(store) -> None:
    code = (
        "from penstock import Limiter; from penstock.testing import virtual_time\n"
        f"with virtual_time(): gate = Limiter(requests=5, store={store!r})\n"
        "print(gate.try_acquire() is not None)\n"
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', '''{{}}'''.format("
        f'"from penstock import Limiter; Limiter(requests=5, store={store!r})")], check=False)'
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=50)
    assert done.stdout == "True\n"
    assert "its times are of another clock" in done.stderr
