"""Forked children: nothing is under way there, everything works, and the parent does not notice.

The children do their work and end without running what pytest would do at its end; what went wrong there is their exit
status and their stderr.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs, no-check-untyped-defs

import asyncio
import contextvars
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings

import pytest
from loops import lasting
from waiting import idle, run, until

from penstock import AcquireTimeout, Limiter, Rate, per_second
from penstock.testing import virtual_time

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="fork"),
    # 3.12 and later warn of forks where threads run: that is what is tested here.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


def in_child(work, seconds=50):
    """Run ``work`` in a forked child."""
    return reap(fork(work, seconds))


def fork(work, seconds=50):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # pytest-timeout's handler is the parent's
            signal.alarm(seconds)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)
    return pid


def reap(pid):
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code == 0, "the child hung" if code == -signal.SIGALRM else f"the child ended with {code}"


def works(limiter, concurrency):
    """The limiter lets through what it should, in threads and loops, with and without waiting."""
    stats = limiter.stats()
    assert (stats.in_flight, stats.waiting) == (0, 0), stats
    permits = [limiter.acquire() for _ in range(concurrency)]
    assert limiter.try_acquire() is None
    with pytest.raises(AcquireTimeout):
        limiter.acquire(timeout=0.01)
    thread = threading.Thread(target=lambda: limiter.acquire().release())
    thread.start()
    until(lambda: limiter.stats().waiting == 1)
    permits.pop().release()
    thread.join(30)
    assert not thread.is_alive()

    async def main():
        permits.append(await limiter.aacquire())
        waiting = asyncio.ensure_future(limiter.aacquire())
        await asyncio.sleep(0)
        with pytest.raises(AcquireTimeout):
            await limiter.aacquire(timeout=0.01)
        assert limiter.stats().waiting == 1
        permits.pop().release()
        permits.append(await asyncio.wait_for(waiting, 30))

    asyncio.run(main())
    for permit in permits:
        permit.release()
        permit.release()
    permits.clear()
    assert idle(limiter)


def hold(limiter, done):
    with limiter.permit():
        done.wait(30)


class TestFork:
    @pytest.mark.parametrize("concurrency", [1, 2, 5])
    def test_permits_out(self, concurrency):
        limiter = Limiter(concurrency=concurrency)
        permits = [limiter.acquire() for _ in range(concurrency)]
        in_child(lambda: works(limiter, concurrency))
        assert limiter.stats().in_flight == concurrency
        del permits
        assert idle(limiter)

    def test_a_copied_permit_changes_nothing(self):
        limiter = Limiter(concurrency=2, tokens=lasting(10_000), per_key={"concurrency": 1})
        permits = [limiter.acquire(100, key="a"), limiter.acquire(100, key="b")]

        def child():
            before = limiter.stats()
            own = [limiter.acquire(50, key="a"), limiter.acquire(50, key="b")]
            assert limiter.try_acquire(key="c") is None
            permits[0].settle(900)
            permits[0].release()
            permits.pop()  # dropped
            permits[0].release()
            gc.collect()
            stats = limiter.stats()
            assert (stats.in_flight, stats.granted) == (2, before.granted + 2)
            assert stats.levels[0].available == before.levels[0].available - 100
            assert limiter.try_acquire(key="c") is None
            for permit in own:
                permit.release()
            assert limiter.stats().in_flight == 0

        in_child(child)
        assert limiter.stats().in_flight == 2

    def test_a_fork_inside_of_a_block(self):
        """The block is the parent's: in the child it covers nothing and ends without a trace."""
        limiter = Limiter(concurrency=1)

        def child():
            # Still inside of the copied block.
            assert limiter.stats().in_flight == 0
            with limiter:
                assert limiter.stats().in_flight == 1
                with limiter.permit():  # nested
                    assert limiter.stats().in_flight == 2
                thread = threading.Thread(target=lambda: taken.append(limiter.try_acquire()))
                thread.start()
                thread.join()
                assert taken == [None]

        taken = []
        with limiter:
            in_child(child)
            assert limiter.stats().in_flight == 1
        assert idle(limiter)

    def test_blocks_that_end_in_the_child(self):
        limiter = Limiter(concurrency=1)
        pid = None
        with limiter, limiter.permit():
            pid = os.fork()
            if pid == 0:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(50)
        if pid == 0:
            status = 1
            try:
                works(limiter, 1)
                for _ in range(3):
                    with limiter, limiter.permit(), limiter:
                        assert limiter.stats().in_flight == 3
                works(limiter, 1)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        reap(pid)
        assert idle(limiter)

    def test_waiters_in_threads(self):
        limiter = Limiter(concurrency=1, requests=per_second(1_000_000))
        permit = limiter.acquire()
        threads = [threading.Thread(target=lambda: limiter.acquire().release()) for _ in range(20)]
        for thread in threads:
            thread.start()
        until(lambda: limiter.stats().waiting == 20)
        in_child(lambda: works(limiter, 1))
        assert (limiter.stats().in_flight, limiter.stats().waiting) == (1, 20)
        permit.release()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert idle(limiter)

    def test_waiters_in_a_loop_of_another_thread(self):
        limiter = Limiter(concurrency=1)
        permit = limiter.acquire()

        async def main():
            await asyncio.gather(*(limiter.amap(nothing, range(5)) for _ in range(10)))

        async def nothing(_):
            pass

        thread = threading.Thread(target=asyncio.run, args=(main(),))
        thread.start()
        until(lambda: limiter.stats().waiting == 10)
        in_child(lambda: works(limiter, 1))
        permit.release()
        thread.join(30)
        assert not thread.is_alive()
        assert idle(limiter)

    def test_from_within_a_running_loop(self):
        limiter = Limiter(concurrency=1, requests=Rate(1_000, 1, burst=1_000))

        def child():
            works(limiter, 1)
            # The parent's tasks go, with what they wait for, while the child's own wait.
            with limiter.permit():
                thread = threading.Thread(target=lambda: limiter.acquire().release())
                thread.start()
                until(lambda: limiter.stats().waiting == 1)
                for task in tasks:
                    task._log_destroy_pending = False
                tasks.clear()
                asyncio.events._set_running_loop(None)
                gc.collect()
                assert limiter.stats().waiting == 1
            thread.join(30)
            assert not thread.is_alive()
            assert idle(limiter)

        async def main():
            async with limiter:
                tasks.extend(asyncio.ensure_future(outside(limiter)) for _ in range(10))
                while limiter.stats().waiting < 10:
                    await asyncio.sleep(0)
                pid = fork(child)
                await asyncio.to_thread(reap, pid)
                assert limiter.stats().waiting == 10
            await asyncio.wait_for(asyncio.gather(*tasks), 20)

        tasks = []
        asyncio.run(main())
        assert idle(limiter)

    def test_a_child_of_a_child(self):
        limiter = Limiter(concurrency=1)

        def child():
            with limiter:
                in_child(lambda: (works(limiter, 1), in_child(lambda: works(limiter, 1))))
                assert limiter.stats().in_flight == 1

        with limiter:
            in_child(child)

    @pytest.mark.slow
    @pytest.mark.once
    def test_fifty_forks_while_threads_hammer_the_limiter(self):
        limiter = Limiter(concurrency=3, tokens=per_second(10_000_000))
        stop = threading.Event()
        rounds = [0] * 6

        def hammer(index):
            while not stop.is_set():
                with limiter.permit(10, key=str(index % 2)) as permit:
                    rounds[index] += 1
                    permit.settle(5)

        async def ahammer():
            while not stop.is_set():
                async with limiter.permit(10):
                    rounds[5] += 1
                    await asyncio.sleep(0)

        threads = [threading.Thread(target=hammer, args=(index,)) for index in range(5)]
        threads.append(threading.Thread(target=lambda: asyncio.run(ahammer())))
        for thread in threads:
            thread.start()
        try:
            until(lambda: all(rounds))
            pids = []
            for _ in range(50):
                pids.append(fork(lambda: works(limiter, 3)))
                if len(pids) == 5:
                    reap(pids.pop(0))
            for pid in pids:
                reap(pid)
            before = list(rounds)
            until(lambda: all(now > then for now, then in zip(rounds, before, strict=True)))
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
        assert idle(limiter)

    def test_what_was_charged_before_stays_charged(self):
        """The provider counts it, whichever process goes on."""
        limiter = Limiter(requests=Rate(1, 3_600, burst=1))
        limiter.acquire().release()

        def child():
            assert limiter.try_acquire() is None

        in_child(child)

    def test_the_child_waits_for_a_rate(self):
        limiter = Limiter(requests=Rate(20, 1, burst=1, window=False))
        started = time.monotonic()
        limiter.acquire().release()

        def child():
            limiter.acquire().release()
            asyncio.run(one())
            assert time.monotonic() - started >= 0.1

        async def one():
            (await limiter.aacquire()).release()

        in_child(child)

    def test_a_fork_in_virtual_time(self):
        """The child's time goes on by itself, whoever waits in the parent."""
        limiter = Limiter(requests=Rate(1, 600, burst=1, window=False))

        def child():
            for _ in range(2):
                limiter.acquire().release()
            asyncio.run(asyncio.sleep(1_000))
            assert clock.now == pytest.approx(1_200 + 1_000)

        with virtual_time() as clock:
            limiter.acquire().release()
            thread = threading.Thread(target=limiter.acquire)
            thread.start()
            until(lambda: limiter.stats().waiting == 1)
            in_child(child)
            assert clock.now == 0
            thread.join()
            assert clock.now == pytest.approx(600)

    def test_a_process_that_is_preloaded(self):
        """As gunicorn does with preload_app: the module makes its limiter, and uses it, before workers are forked."""
        out = run("""
import asyncio, os, sys
from penstock import Limiter, per_second
limiter = Limiter(concurrency=2, requests=per_second(1_000_000))

@limiter.limit()
async def acall():
    await asyncio.sleep(0.001)

@limiter.limit()
def call():
    pass

async def warm_up():
    await asyncio.gather(*(acall() for _ in range(20)))

asyncio.run(warm_up())
call()
workers = []
for _ in range(4):
    pid = os.fork()
    if not pid:
        break
    workers.append(pid)
else:
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers]
    print(codes, limiter.stats().in_flight, limiter.stats().granted)
    sys.exit()
for _ in range(3):
    asyncio.run(warm_up())
    call()
assert (limiter.stats().in_flight, limiter.stats().waiting) == (0, 0)
""")
        assert out == "[0, 0, 0, 0] 0 21\n"


def use(limiter_of, queue):
    limiter = limiter_of()
    with limiter:
        queue.put((limiter.stats().in_flight, limiter.stats().waiting))


LIMITER = Limiter(concurrency=1)


def the_limiter():
    return LIMITER


def call_one(item):
    with LIMITER:
        return item * 2


class TestMultiprocessing:
    @pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
    def test_a_process(self, method):
        context = multiprocessing.get_context(method)
        queue = context.SimpleQueue()
        with LIMITER, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            process = context.Process(target=use, args=(the_limiter, queue))
            process.start()
            process.join(40)
            assert process.exitcode == 0
            assert queue.get() == (1, 0)
            assert LIMITER.stats().in_flight == 1
            process.close()
        assert idle(LIMITER)

    def test_a_pool(self):
        with LIMITER, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            with multiprocessing.get_context("fork").Pool(2) as pool:
                assert pool.map(call_one, range(50)) == [item * 2 for item in range(50)]
                pool.close()
                pool.join()


async def outside(limiter):
    """A call that is not nested, though its task was made inside of a block."""

    def ask():
        return asyncio.ensure_future(limiter.aacquire())

    (await contextvars.Context().run(ask)).release()
