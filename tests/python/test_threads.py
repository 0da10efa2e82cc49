"""Threads, alone and together with event loops, on one limiter."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs, no-check-untyped-defs

import asyncio
import contextlib
import ctypes
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from waiting import idle, run, until

from penstock import AcquireTimeout, Limiter, Rate, _parking, per_second
from penstock.testing import virtual_time


def start(targets):
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    return threads


def join(threads, seconds=30):
    for thread in threads:
        thread.join(seconds)
        assert not thread.is_alive(), "a thread hangs"


def until_waiting(limiter, count):
    until(lambda: limiter.stats().waiting == count)


def times_out(limiter, timeout):
    with pytest.raises(AcquireTimeout):
        limiter.acquire(timeout=timeout)


class Gauge:
    """How many are inside at once."""

    def __init__(self):
        self.now = self.most = self.total = 0
        self.lock = threading.Lock()

    def __enter__(self):
        with self.lock:
            self.now += 1
            self.total += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_):
        with self.lock:
            self.now -= 1


class TestManyThreads:
    def test_concurrency_is_exact(self):
        limiter = Limiter(concurrency=7)
        gauge = Gauge()

        def work():
            for _ in range(30):
                with limiter.permit(), gauge:
                    time.sleep(0.000_1)

        join(start([work] * 40))
        assert (gauge.total, gauge.most) == (1_200, 7)
        stats = limiter.stats()
        assert (stats.granted, stats.in_flight, stats.waiting, stats.cancelled) == (1_200, 0, 0, 0)

    def test_a_rate_is_exact(self):
        limiter = Limiter(
            requests=Rate(5, 10, burst=5, window=False), tokens=Rate(1_000, 10, burst=1_000, window=False)
        )
        left = []

        def work():
            for _ in range(10):
                limiter.acquire(200).release()
                left.append(clock.now)

        with virtual_time() as clock:
            join(start([work] * 20))
        assert sorted(left) == left
        assert left[:5] == [0] * 5
        assert left[5:] == pytest.approx([2.0 * index for index in range(1, 196)], abs=0.001)

    def test_first_come_first_served(self):
        limiter = Limiter(concurrency=1)
        served = []

        def work(index):
            with limiter.permit():
                served.append(index)

        with limiter.permit():
            threads = []
            for index in range(100):
                threads += start([lambda index=index: work(index)])
                until(lambda index=index: limiter.stats().waiting == index + 1)
        join(threads)
        assert served == list(range(100))

    def test_priorities_and_keys_of_threads(self):
        limiter = Limiter(concurrency=1)
        served = []

        def work(name, **terms):
            with limiter.permit(**terms):
                served.append(name)

        with limiter.permit():
            threads = []
            for index in range(10):
                threads += start([lambda index=index: work(("low", index), priority=-1)])
                until_waiting(limiter, len(threads))
            for index in range(10):
                threads += start([lambda index=index: work(("high", index), key="a" if index < 5 else "b")])
                until_waiting(limiter, len(threads))
        join(threads)
        assert served[10:] == [("low", index) for index in range(10)]
        assert served[:10] == [("high", index) for pair in zip(range(5), range(5, 10), strict=True) for index in pair]

    def test_limits_of_a_key_in_threads(self):
        """The waiters of a key that has used up its own limits are set aside; still they are woken in time."""
        limiter = Limiter(per_key={"requests": Rate(1, 60, burst=1, window=False), "concurrency": 1})
        left = []

        def work(key):
            for _ in range(4):
                with limiter.permit(key=key):
                    left.append((key, clock.now))

        with virtual_time() as clock:
            join(start([lambda key=key: work(key) for key in "abc" for _ in range(3)]))
        for key in "abc":
            times = [at for owner, at in left if owner == key]
            assert times == pytest.approx([60.0 * index for index in range(12)], abs=0.001)

    def test_limits_of_a_key_in_a_thread_that_is_alone(self):
        limiter = Limiter(per_key={"requests": Rate(20, 1, burst=1, window=False)})
        started = time.monotonic()
        join(start([lambda: [limiter.acquire(key="a") for _ in range(5)]]))
        assert time.monotonic() - started >= 0.199

    def test_nothing_is_lost_or_counted_twice(self):
        """Whatever threads do with their permits, each is given back once."""
        limiter = Limiter(concurrency=5, requests=per_second(1_000_000), tokens=per_second(100_000_000))
        gauge = Gauge()
        counted = [0, 0, 0]
        lock = threading.Lock()

        def work(seed):
            random_ = random.Random(seed)
            for _ in range(60):
                try:
                    permit = limiter.acquire(10, key=str(seed % 3), timeout=random_.choice([None, None, 0, 0.001, 5]))
                except AcquireTimeout:
                    with lock:
                        counted[1] += 1
                    continue
                with gauge:
                    time.sleep(random_.random() / 2_000)
                    permit.settle(random_.randrange(20))
                with lock:
                    counted[0] += 1
                end = random_.randrange(4)
                if end == 0:
                    permit.release()
                elif end == 1:
                    permit.release()
                    permit.release()
                elif end == 2:
                    with permit:
                        pass
                del permit

        join(start([lambda seed=seed: work(seed) for seed in range(30)]))
        stats = limiter.stats()
        assert gauge.most == 5
        assert counted[0] + counted[1] == 1_800
        assert (stats.granted, stats.timeouts) == (counted[0], counted[1])
        assert idle(limiter)

    def test_timeouts(self):
        limiter = Limiter(concurrency=1)
        raised = []

        def work(timeout):
            with pytest.raises(AcquireTimeout):
                limiter.acquire(timeout=timeout)
            raised.append((timeout, clock.now))

        with virtual_time() as clock, limiter.permit():
            join(start([lambda timeout=timeout: work(timeout) for timeout in (300, 10, 200, 20, 100)]))
        assert [timeout for timeout, _ in raised] == [10, 20, 100, 200, 300]
        assert [at for _, at in raised] == pytest.approx([10, 20, 100, 200, 300], abs=0.001)
        assert limiter.stats().timeouts == 5
        assert idle(limiter)

    def test_a_timeout_in_real_time(self):
        limiter = Limiter(concurrency=1)
        with limiter.permit():
            started = time.monotonic()
            join(start([lambda: times_out(limiter, 0.2)]))
            assert 0.2 <= time.monotonic() - started < 10

    def test_who_stands_behind_one_that_gives_up_is_woken_in_time(self):
        limiter = Limiter(requests=Rate(1, 60, burst=1, window=False))
        left = []

        def work(timeout):
            with contextlib.suppress(AcquireTimeout):
                limiter.acquire(timeout=timeout)
                left.append(clock.now)

        with virtual_time() as clock:
            limiter.acquire()
            limiter.cooldown(30)
            threads = []
            for timeout in (None, None):
                threads += start([lambda timeout=timeout: work(timeout)])
                until_waiting(limiter, len(threads))
            assert clock.now == 0
            limiter.update(requests=Rate(10, 60, burst=1, window=False))
            join(threads)
        assert left == sorted(left) and left[-1] <= 60

    def test_faster_limits_reach_threads_that_sleep(self):
        limiter = Limiter(requests=Rate(1, 3_600, burst=1, window=False))
        limiter.acquire()
        threads = start([limiter.acquire] * 10)
        until(lambda: limiter.stats().waiting == 10)
        limiter.update(requests=None)
        join(threads)
        assert limiter.stats().waiting == 0

    def test_a_thread_that_waits_costs_nothing(self):
        """Nobody polls: of those who wait for a slot each sleeps once."""
        sleeps = []
        sleep_on = _parking.sleep_on

        def counted(lock, seconds):
            sleeps.append(seconds)
            sleep_on(lock, seconds)

        limiter = Limiter(concurrency=1)
        try:
            _parking.sleep_on = counted
            permit = limiter.acquire()
            threads = start([lambda: limiter.acquire().release()] * 200)
            until(lambda: limiter.stats().waiting == 200)
            until(lambda: len(sleeps) == 200)
            permit.release()
            join(threads)
        finally:
            _parking.sleep_on = sleep_on
        assert sleeps == [-1] * 200


class TestThreadsAndLoops:
    def test_mixed_is_exact_and_in_order(self):
        """Threads, and loops in threads, all at once: every limit is kept, and who came first goes first."""
        limiter = Limiter(concurrency=4, requests=Rate(600, 60, burst=20, window=False))
        gauge = Gauge()
        times = []

        def thread():
            for _ in range(10):
                with limiter.permit(), gauge:
                    times.append(clock.now)

        async def task():
            for _ in range(5):
                async with limiter.permit():
                    with gauge:
                        times.append(clock.now)
                        await asyncio.sleep(0.01)

        async def loop():
            await asyncio.gather(*(task() for _ in range(20)))

        with virtual_time() as clock:
            join(start([thread] * 15 + [lambda: asyncio.run(loop())] * 4))
        assert gauge.most <= 4
        assert gauge.total == len(times) == 15 * 10 + 4 * 20 * 5
        for first, at in enumerate(times):
            inside = sum(1 for other in times if at <= other < at + 10)
            assert inside <= 20 + 100 + 1, (first, inside)
        assert len(times) / 10 - 2 - 0.1 <= times[-1] < len(times) / 10 + 5
        assert idle(limiter)

    def test_mixed_under_load_in_real_time(self):
        limiter = Limiter(concurrency=3)
        gauge = Gauge()

        def thread():
            for _ in range(100):
                with limiter.permit(), gauge:
                    pass

        async def task():
            for _ in range(20):
                async with limiter.permit():
                    with gauge:
                        await asyncio.sleep(0)

        async def loop():
            await asyncio.gather(*(task() for _ in range(20)))

        join(start([thread] * 10 + [lambda: asyncio.run(loop())] * 4))
        assert gauge.most <= 3
        assert gauge.total == 1_000 + 1_600
        assert idle(limiter)

    def test_cancellations_on_all_sides_leave_nothing(self):
        limiter = Limiter(concurrency=2, per_key={"concurrency": 1})

        def thread(seed):
            random_ = random.Random(seed)
            for _ in range(30):
                permit = limiter.permit(key=str(seed % 3), timeout=random_.random() / 100)
                with contextlib.suppress(AcquireTimeout), permit:
                    time.sleep(0.000_2)

        async def task(random_, key):
            with contextlib.suppress(asyncio.TimeoutError, AcquireTimeout):
                await asyncio.wait_for(inside(key), random_.random() / 100)

        async def inside(key):
            async with limiter.permit(key=key):
                await asyncio.sleep(0.000_2)

        async def loop(seed):
            random_ = random.Random(seed)
            await asyncio.gather(*(task(random_, str(index % 3)) for index in range(200)))

        threads = [lambda seed=seed: thread(seed) for seed in range(8)]
        join(start(threads + [lambda seed=seed: asyncio.run(loop(seed)) for seed in range(3)]))
        assert idle(limiter)
        with limiter.permit(key="0"):
            pass

    def test_a_release_in_a_thread_wakes_a_loop(self):
        limiter = Limiter(concurrency=1)
        permit = limiter.acquire()
        released = []

        def release():
            until(lambda: limiter.stats().waiting == 1)
            time.sleep(0.05)
            released.append(time.monotonic())
            permit.release()

        async def main():
            async with limiter.permit():
                return time.monotonic()

        threads = start([release])
        woken = asyncio.run(asyncio.wait_for(main(), 30))
        join(threads)
        assert 0 <= woken - released[0] < 5

    def test_a_release_in_a_loop_wakes_a_thread(self):
        limiter = Limiter(concurrency=1)
        woken = []

        def wait():
            with limiter.permit():
                woken.append(time.monotonic())

        async def main():
            async with limiter.permit():
                threads = start([wait])
                while limiter.stats().waiting == 0:
                    await asyncio.sleep(0.001)
                await asyncio.sleep(0.05)
                released = time.monotonic()
            return threads, released

        threads, released = asyncio.run(main())
        join(threads)
        assert 0 <= woken[0] - released < 5

    def test_a_release_in_a_loop_wakes_another_loop(self):
        limiter = Limiter(concurrency=1)
        waiting = threading.Barrier(2)

        async def holder():
            async with limiter.permit():
                await asyncio.to_thread(waiting.wait)
                while limiter.stats().waiting == 0:
                    await asyncio.sleep(0.001)

        async def waiter():
            await asyncio.to_thread(waiting.wait)
            async with limiter.permit():
                pass

        join(start([lambda: asyncio.run(holder()), lambda: asyncio.run(waiter())]))
        assert idle(limiter)

    def test_a_loop_is_woken_once_however_many_it_concerns(self):
        calls = 0
        limiter = Limiter(concurrency=500)

        class Loop(asyncio.SelectorEventLoop):
            def call_soon_threadsafe(self, callback, *args, context=None):
                nonlocal calls
                if type(callback).__name__ == "Tick":
                    calls += 1
                return super().call_soon_threadsafe(callback, *args, context=context)

        async def one():
            (await limiter.aacquire()).release()

        async def main():
            loop = asyncio.get_running_loop()
            tasks = [asyncio.ensure_future(one()) for _ in range(500)]
            await asyncio.sleep(0)
            assert limiter.stats().waiting == 500
            done = threading.Event()

            def release():
                time.sleep(0.05)
                limiter.update(concurrency=1_000)
                done.set()

            threads = start([release])
            done.wait(30)  # the loop looks at nothing meanwhile
            join(threads)
            assert loop is asyncio.get_running_loop()
            await asyncio.gather(*tasks)

        permits = [limiter.acquire() for _ in range(500)]
        loop = Loop()
        loop.run_until_complete(main())
        loop.close()
        assert calls == 1
        del permits

    def test_a_loop_closed_with_waiters_at_the_head_holds_nobody_up(self):
        limiter = Limiter(requests=Rate(1, 30, burst=1, window=False))
        left = []

        def thread():
            limiter.acquire()
            left.append(clock.now)

        with virtual_time() as clock:
            limiter.acquire()
            loop = asyncio.new_event_loop()
            heads = [loop.create_task(wait(limiter)) for _ in range(3)]
            loop.run_until_complete(asyncio.sleep(1))
            assert limiter.stats().waiting == 3
            threads = start([thread, thread])
            until(lambda: waits(limiter, 5))
            loop.close()
            join(threads)
        # Nothing tells when a loop is closed. So they leave as if those ahead had left, but no later.
        assert len(left) == 2 and left[0] <= 120.001 and left[1] <= 150.001
        drop(heads)
        assert idle(limiter)

    def test_a_loop_closed_with_waiters_at_the_head_gives_no_slot_away(self):
        limiter = Limiter(concurrency=1)
        permit = limiter.acquire()
        loop = asyncio.new_event_loop()
        heads = [loop.create_task(wait(limiter)) for _ in range(3)]
        loop.run_until_complete(asyncio.sleep(0))
        threads = start([lambda: limiter.acquire().release()] * 2)
        until(lambda: waits(limiter, 5))
        loop.close()
        permit.release()
        join(threads)
        drop(heads)
        assert idle(limiter)

    def test_a_loop_closed_after_it_was_told(self):
        """The slot is given to a call of a loop that closes before it has looked."""
        limiter = Limiter(concurrency=1)
        permit = limiter.acquire()
        loop = asyncio.new_event_loop()
        heads = [loop.create_task(wait(limiter)) for _ in range(2)]
        loop.run_until_complete(asyncio.sleep(0))
        join(start([permit.release]))  # tells the loop, which does not run
        assert limiter.stats().in_flight == 1
        threads = start([lambda: limiter.acquire().release()])
        until(lambda: waits(limiter, 2))
        loop.close()
        assert limiter.stats().waiting <= 1  # asking for numbers is a time to look for closed loops
        join(threads)
        drop(heads)
        assert idle(limiter)


def waits(limiter, count):
    """How many wait, without a look for closed loops."""
    return limiter.stats().waiting == count


async def wait(limiter):
    async with limiter.permit():
        await asyncio.sleep(0)


def drop(tasks):
    """Lets tasks of a closed loop go without the word that asyncio has for them."""
    for task in tasks:
        task._log_destroy_pending = False
        task.get_coro().close()
    tasks.clear()


class Killed(BaseException):
    pass


def kill(thread, error=Killed):
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(error)) == 1


class TestExceptionsFromOutside:
    def test_a_thread_that_is_killed_while_it_waits(self):
        """The exception comes when it wakes: what it was granted goes back."""
        limiter = Limiter(concurrency=1)
        ended = []

        def work():
            try:
                limiter.acquire()
            except Killed:
                ended.append("killed")
            else:
                ended.append("got it")

        permit = limiter.acquire()
        threads = start([work] * 5)
        until(lambda: limiter.stats().waiting == 5)
        for thread in threads:
            kill(thread)
        permit.release()
        join(threads)
        assert ended == ["killed"] * 5
        assert idle(limiter)
        assert limiter.stats().cancelled == 5

    @pytest.mark.slow
    def test_a_thread_that_is_killed_at_any_time(self):
        """Before, while and after it sleeps."""
        limiter = Limiter(concurrency=2, requests=per_second(100_000), tokens=per_second(1_000_000))

        def work():
            try:
                at_work.append(threading.get_ident())
                while True:
                    with contextlib.suppress(AcquireTimeout), limiter.permit(3, timeout=1):
                        pass
            except Killed:
                return

        deadline = time.monotonic() + 2
        random_ = random.Random(5)
        rounds = 0
        while time.monotonic() < deadline and rounds < 60:
            rounds += 1
            at_work = []
            threads = start([work] * 6)
            until(lambda: len(at_work) == 6)
            time.sleep(random_.random() / 100)
            for thread in threads:
                kill(thread)  # once: a second one might come when it has left what catches the first
            join(threads)
        assert idle(limiter)

    def test_an_exception_before_the_thread_sleeps(self, monkeypatch):
        """Even one that comes before `park` has done anything."""
        limiter = Limiter(concurrency=1)

        def interrupted(waiter, *_):
            raise KeyboardInterrupt

        permit = limiter.acquire()
        with monkeypatch.context() as patch:
            patch.setattr(_parking, "park", interrupted)
            with pytest.raises(KeyboardInterrupt):
                limiter.acquire()
            with pytest.raises(KeyboardInterrupt), limiter.permit():
                pass
            with pytest.raises(KeyboardInterrupt), limiter:
                pass
        assert (limiter.stats().in_flight, limiter.stats().waiting) == (1, 0)
        permit.release()
        assert idle(limiter)

    @pytest.mark.skipif(sys.platform == "win32", reason="signals")
    @pytest.mark.parametrize(
        "wait",
        [
            "limiter.acquire()",
            "limiter.acquire(timeout=10_000)",
            "limiter.map(len, ['a', 'b'])",
            "enter(limiter)",
            "limiter.limit()(len)('')",
        ],
    )
    def test_ctrl_c_ends_a_wait(self, wait):
        # Whoever runs the tests may ignore Ctrl-C, as shells do for what they run in the background.
        code = f"""
import signal, sys, threading, time
from penstock import Limiter, Rate
signal.signal(signal.SIGINT, signal.default_int_handler)

def enter(limiter):
    with limiter:
        pass

limiter = Limiter(requests=Rate(1, 3_600, burst=1, window=False), concurrency=50)
held = limiter.acquire()

def tell():
    while limiter.stats().waiting == 0:
        time.sleep(0.001)
    print("waiting", flush=True)

try:
    threading.Thread(target=tell).start()
    {wait}
except KeyboardInterrupt:
    print(time.time(), flush=True)
held.release()
stats = limiter.stats()
assert (stats.in_flight, stats.waiting) == (0, 0), stats
"""
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout.readline() == "waiting\n"
            time.sleep(0.05)  # it is among those who wait, and a moment later it sleeps
            interrupted = time.time()
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=30)
        finally:
            process.kill()
        assert (process.returncode, stderr) == (0, "")
        assert float(stdout) - interrupted < 20

    @pytest.mark.skipif(sys.platform == "win32", reason="signals")
    def test_a_signal_handler_that_returns_does_not_end_a_wait(self):
        limiter = Limiter(concurrency=1)
        permit = limiter.acquire()
        seen = []

        def interrupt():
            until(lambda: limiter.stats().waiting == 1)
            time.sleep(0.05)  # it is among those who wait, and a moment later it sleeps
            os.kill(os.getpid(), signal.SIGUSR1)
            until(lambda: seen)
            time.sleep(0.05)
            seen.append(limiter.stats().waiting)
            permit.release()

        before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(limiter.try_acquire()))
        try:
            threads = start([interrupt])
            limiter.acquire().release()
            join(threads)
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert seen == [None, 1]


class TestTheEndOfTheInterpreter:
    def test_daemon_threads_that_wait(self):
        run("""
import threading, time
from penstock import Limiter, per_hour
limiter = Limiter(concurrency=1, requests=per_hour(1))
held = limiter.acquire()
threading.stack_size(65_536)
for index in range(1_000):
    threading.Thread(target=limiter.acquire, kwargs={"timeout": None if index % 2 else 1e9}, daemon=True).start()
while limiter.stats().waiting < 1_000:
    time.sleep(0.001)
""")

    def test_daemon_threads_that_are_at_it(self):
        run("""
import threading, time
from penstock import Limiter
limiter = Limiter(concurrency=2)
def work():
    while True:
        with limiter:
            pass
for _ in range(20):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.2)
""")

    def test_a_loop_that_is_cancelled(self):
        run("""
import asyncio
from penstock import Limiter
limiter = Limiter(concurrency=1)
async def one():
    async with limiter.permit():
        pass
async def main():
    async with limiter:
        tasks = [asyncio.create_task(one()) for _ in range(1_000)]
        tasks += [asyncio.ensure_future(limiter.aacquire()) for _ in range(10)]
        await asyncio.sleep(0)
asyncio.run(main())
assert limiter.stats().waiting == 0
""")

    def test_a_loop_that_just_stops(self):
        """Permits, awaitables and a limiter that are globals to the end."""
        run("""
import asyncio
from penstock import Limiter
limiter = Limiter(concurrency=1)
async def main():
    global permit, pending, waiting
    permit = await limiter.aacquire()
    pending = limiter.aacquire()
    waiting = limiter.aacquire().__await__()
    next(waiting)
asyncio.run(main())
""")

    def test_atexit(self):
        out = run("""
import atexit, threading, time
from penstock import Limiter, AcquireTimeout
limiter = Limiter(concurrency=1)
held = limiter.acquire()
@atexit.register
def last():
    try:
        limiter.acquire(timeout=0.05)
    except AcquireTimeout:
        held.release()
        with limiter:
            print(limiter.stats().in_flight)
""")
        assert out == "1\n"

    def test_threads_that_are_joined_at_the_end(self):
        out = run("""
import threading
from penstock import Limiter, Rate
limiter = Limiter(requests=Rate(100, 1, burst=1, window=False))
def work():
    limiter.acquire().release()
    print("left\\n", end="")  # in one piece
for _ in range(10):
    threading.Thread(target=work).start()
""")
        assert out == "left\n" * 10

    def test_exit_codes_stay(self):
        run(
            """
import os, sys, threading
from penstock import Limiter
limiter = Limiter(concurrency=1)
held = limiter.acquire()
threading.Thread(target=limiter.acquire, daemon=True).start()
sys.exit(7)
""",
            returncode=7,
        )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
def test_a_sleeping_thread_uses_no_processor():
    limiter = Limiter(concurrency=1)
    with limiter.permit():
        threads = start([lambda: limiter.acquire(timeout=1_000).release()] * 50)
        until(lambda: limiter.stats().waiting == 50)
        time.sleep(0.05)
        before = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - before < 0.2
    join(threads)
