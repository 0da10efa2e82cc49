"""Virtual time: waits take no time, happen when they are due, and nobody polls."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs, no-check-untyped-defs

import asyncio
import concurrent.futures
import queue
import socket
import subprocess
import sys
import threading
import time

import pytest
from sharing import fresh_store
from waiting import run, until

from penstock import AcquireTimeout, Limiter, Rate, _core, _parking, per_hour, per_second
from penstock.testing import VirtualClock, virtual_time

PLACES = [
    (asyncio.BaseEventLoop, "time"),
    (asyncio.BaseEventLoop, "_run_once"),
    (concurrent.futures.ThreadPoolExecutor, "submit"),
    (_parking, "Lock"),
    (_parking, "sleep_on"),
]


@pytest.fixture(autouse=True)
def everything_is_put_back():
    before = [getattr(owner, name) for owner, name in PLACES]
    yield
    assert [getattr(owner, name) for owner, name in PLACES] == before
    assert not _core.clock_frozen()
    assert not [thread for thread in threading.enumerate() if thread.name == "penstock-virtual-time"]


def one_per(seconds):
    return Limiter(requests=Rate(1, seconds, burst=1, window=False))


class TestLoops:
    @pytest.mark.slow
    def test_an_hour_of_36000_waiters_is_exact(self):
        ends = []

        async def one(limiter, clock):
            with await limiter.aacquire():
                ends.append(clock.now)

        async def main(clock):
            limiter = Limiter(requests=per_second(10, burst=1, window=False))
            await asyncio.gather(*(one(limiter, clock) for _ in range(36_000)))
            assert (limiter.stats().in_flight, limiter.stats().waiting) == (0, 0)

        with virtual_time() as clock:
            asyncio.run(main(clock))
            assert clock.now == pytest.approx(3_599.9, abs=0.001)
        assert max(abs(end - index / 10) for index, end in enumerate(ends)) < 0.001

    def test_nobody_polls(self, monkeypatch):
        """Each waiter sleeps on one future, and the loop rings once for each time at which one is due."""
        futures = rings = 0
        create_future, call_at = asyncio.BaseEventLoop.create_future, asyncio.BaseEventLoop.call_at

        def count_future(loop):
            nonlocal futures
            futures += 1
            return create_future(loop)

        def count_ring(loop, *args, **kwargs):
            nonlocal rings
            rings += 1
            return call_at(loop, *args, **kwargs)

        async def one(limiter):
            (await limiter.aacquire()).release()

        async def main():
            limiter = one_per(60)
            await asyncio.sleep(0)
            tasks = [asyncio.create_task(one(limiter)) for _ in range(500)]
            monkeypatch.setattr(asyncio.BaseEventLoop, "create_future", count_future)
            monkeypatch.setattr(asyncio.BaseEventLoop, "call_at", count_ring)
            await asyncio.wait(tasks)

        with virtual_time():
            asyncio.run(main())
        monkeypatch.undo()
        assert futures <= 499 + 2  # one is admitted at once; asyncio.wait has one of its own
        assert rings <= 499 + 1

    def test_all_of_asyncio_sees_it(self):
        async def main(clock):
            loop = asyncio.get_running_loop()
            start = loop.time()
            await asyncio.sleep(3_600)
            assert clock.now == pytest.approx(3_600)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 600)
            rung = []
            loop.call_later(20, rung.append, 2)
            loop.call_later(10, rung.append, 1)
            await asyncio.sleep(30)
            assert rung == [1, 2]
            if sys.version_info >= (3, 11):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(86_400 * 3):
                        await asyncio.sleep(86_400 * 4)
            else:
                await asyncio.sleep(86_400 * 3)
            assert loop.time() - start == pytest.approx(4_230 + 86_400 * 3) == clock.now

        with virtual_time() as clock:
            asyncio.run(main(clock))

    def test_inside_of_a_running_loop(self):
        """Time goes on from where the loop's clock stood, and a timer that is left rings so much later as it would."""

        async def main():
            loop = asyncio.get_running_loop()
            before = loop.time()
            limiter = one_per(100)
            with virtual_time() as clock:
                for _ in range(3):
                    (await limiter.aacquire()).release()
                assert clock.now == pytest.approx(200)
                assert 200 <= loop.time() - before < 230
                left = loop.create_future()
                loop.call_later(0.05, left.set_result, None)
            assert loop.time() - before < 30
            await asyncio.wait_for(left, 20)

        asyncio.run(main())

    def test_a_waiter_left_behind_goes_on_in_real_time(self):
        async def main():
            limiter = one_per(0.25)
            limiter.acquire()
            with virtual_time():
                task = asyncio.ensure_future(limiter.aacquire())
                await asyncio.sleep(0)
            (await asyncio.wait_for(task, 30)).release()

        asyncio.run(main())

    def test_a_timeout_of_a_limiter(self):
        async def main(clock):
            limiter = Limiter(concurrency=1)
            async with limiter:
                with pytest.raises(AcquireTimeout):
                    await asyncio.create_task(outside(limiter))
            assert clock.now == pytest.approx(7_200)

        async def outside(limiter):
            import contextvars

            def acquire():
                return asyncio.ensure_future(limiter.aacquire(timeout=7_200))

            await contextvars.Context().run(acquire)

        with virtual_time() as clock:
            asyncio.run(main(clock))

    def test_executors_are_waited_for(self):
        async def main(clock):
            beaten = asyncio.create_task(asyncio.sleep(5))
            assert await asyncio.to_thread(slow) == "done"
            assert clock.now == 0 and not beaten.done()
            assert await asyncio.gather(*(asyncio.to_thread(slow) for _ in range(20))) == ["done"] * 20
            assert clock.now == 0 and not beaten.done()
            await beaten
            assert clock.now == pytest.approx(5)

        def slow():
            time.sleep(0.05)
            return "done"

        with virtual_time() as clock:
            asyncio.run(main(clock))

    def test_a_full_executor_of_threads_that_wait_gets_on(self):
        async def main(clock):
            limiter = one_per(10)
            loop = asyncio.get_running_loop()
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                await asyncio.gather(*(loop.run_in_executor(pool, limiter.acquire) for _ in range(7)))
            assert clock.now == pytest.approx(60)

        with virtual_time() as clock:
            asyncio.run(main(clock))

    def test_sockets_on_loopback_are_waited_for(self):
        async def main(clock):
            async def answer(reader, writer):
                data = await reader.readexactly(4)
                await asyncio.sleep(20)  # the server's latency is virtual, too
                writer.write(data[::-1])
                await writer.drain()
                writer.close()

            async def ask():
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"ping")
                data = await asyncio.wait_for(reader.read(), 30)
                writer.close()
                return data

            server = await asyncio.start_server(answer, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            assert await asyncio.gather(*(ask() for _ in range(20))) == [b"gnip"] * 20
            assert clock.now == pytest.approx(20)
            server.close()
            await server.wait_closed()

        with virtual_time() as clock:
            asyncio.run(main(clock))

    def test_a_socket_of_another_thread(self):
        """A loop that waits for a thread's answer, with a timer behind it."""
        here, there = socket.socketpair()

        def echo():
            there.sendall(there.recv(4)[::-1])
            there.close()

        async def main(clock):
            here.setblocking(False)
            loop = asyncio.get_running_loop()
            thread = threading.Thread(target=echo)
            thread.start()
            await loop.sock_sendall(here, b"ping")
            assert await asyncio.wait_for(loop.sock_recv(here, 4), 1_000) == b"gnip"
            thread.join()
            assert clock.now == 0
            here.close()

        with virtual_time() as clock:
            asyncio.run(main(clock))

    def test_loops_in_threads_take_turns_by_their_times(self):
        limiter = one_per(10)
        log = []

        async def main(clock, name):
            for _ in range(10):
                (await limiter.aacquire()).release()
                log.append((round(clock.now, 6), name))

        with virtual_time() as clock:
            threads = [threading.Thread(target=asyncio.run, args=(main(clock, name),)) for name in range(5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert [at for at, _ in log] == [10.0 * index for index in range(50)]
        assert {name for _, name in log} == set(range(5))

    @pytest.mark.skipif(sys.platform == "win32", reason="uvloop")
    def test_other_loops_are_refused(self):
        uvloop = pytest.importorskip("uvloop")

        async def inside():
            with pytest.raises(RuntimeError, match=r"asyncio itself, not uvloop\.Loop"), virtual_time():
                pass

        async def around():
            limiter = one_per(10)
            (await limiter.aacquire()).release()
            with pytest.raises(RuntimeError, match=r"asyncio itself, not uvloop\.Loop"):
                await limiter.aacquire()
            assert limiter.stats().waiting == 0

        def run(main):
            loop = uvloop.new_event_loop()
            try:
                loop.run_until_complete(main)
            finally:
                loop.close()

        run(inside())
        with virtual_time():
            run(around())

    def test_trio_is_refused(self):
        trio = pytest.importorskip("trio")

        async def main():
            limiter = one_per(10)
            (await limiter.aacquire()).release()
            with pytest.raises(RuntimeError, match="not trio"):
                await limiter.aacquire()
            assert limiter.stats().waiting == 0

        with virtual_time():
            trio.run(main)


class TestThreads:
    def test_one_thread(self):
        limiter = one_per(3_600)
        with virtual_time() as clock:
            for _ in range(25):
                limiter.acquire().release()
            assert clock.now == pytest.approx(24 * 3_600)

    def test_many_threads_leave_at_their_times_and_in_order(self):
        limiter = one_per(60)
        left = []

        def one(index):
            permit = limiter.acquire()
            left.append((clock.now, index))
            permit.release()

        with virtual_time() as clock:
            threads = [threading.Thread(target=one, args=(index,)) for index in range(200)]
            for index, thread in enumerate(threads):
                thread.start()
                until(lambda index=index: index == 0 or limiter.stats().waiting == index)
            for thread in threads:
                thread.join()
        assert [index for _, index in left] == list(range(200))
        assert [at for at, _ in left] == pytest.approx([60.0 * index for index in range(200)], abs=0.001)

    def test_a_thread_sleeps_once_and_is_woken_once(self, monkeypatch):
        limiter = one_per(60)
        sleeps = []

        with virtual_time():
            sleep_on = _parking.sleep_on

            def counted(lock, seconds):
                sleeps.append(threading.get_ident())
                sleep_on(lock, seconds)

            monkeypatch.setattr(_parking, "sleep_on", counted)
            with limiter.permit():
                threads = [threading.Thread(target=limiter.acquire) for _ in range(100)]
                for index, thread in enumerate(threads):
                    thread.start()
                    until(lambda index=index: limiter.stats().waiting == index + 1)
                for thread in threads:
                    thread.join()
            monkeypatch.undo()
        assert len(sleeps) == len(set(sleeps)) == 100

    def test_a_thread_at_work_holds_time_back(self):
        limiter = one_per(10)

        def work():
            time.sleep(0.2)
            done.append(clock.now)

        done = []
        with virtual_time() as clock:
            limiter.acquire()
            thread = threading.Thread(target=work)
            thread.start()
            limiter.acquire()
            thread.join()
            assert clock.now == pytest.approx(10)
        assert done == [0]

    def test_a_thread_that_is_stuck_does_not_hold_time_back_for_ever(self):
        """A bare lock does not say whom it waits for."""
        limiter = one_per(10)
        lock = threading.Lock()
        lock.acquire()
        thread = threading.Thread(target=lock.acquire)
        thread.start()
        try:
            with virtual_time() as clock:
                for _ in range(101):
                    limiter.acquire()
                assert clock.now == pytest.approx(1_000)
        finally:
            lock.release()
            thread.join()

    def test_threads_that_wait_for_threads_are_no_work(self):
        limiter = one_per(10)
        inbox = queue.Queue()

        def worker():
            limiter.acquire()
            inbox.put(clock.now)

        with virtual_time() as clock:
            threads = [threading.Thread(target=worker) for _ in range(10)]
            for thread in threads:
                thread.start()
            assert [inbox.get(timeout=30) for _ in threads] == pytest.approx([10.0 * index for index in range(10)])
            for thread in threads:
                thread.join()

    def test_the_pool_of_map(self):
        limiter = one_per(10)
        with virtual_time() as clock:
            assert limiter.map(lambda item: item + 1, range(20)) == list(range(1, 21))
            assert clock.now == pytest.approx(190)

    def test_a_timeout_of_a_thread(self):
        limiter = Limiter(concurrency=1)
        limiter_held = limiter.acquire()
        with virtual_time() as clock:
            with pytest.raises(AcquireTimeout):
                limiter.acquire(timeout=3_600)
            assert clock.now == pytest.approx(3_600)
        limiter_held.release()

    def test_threads_and_a_loop(self):
        limiter = one_per(10)
        times = []

        def thread():
            limiter.acquire().release()
            times.append(clock.now)

        async def task():
            (await limiter.aacquire()).release()
            times.append(clock.now)

        async def main():
            await asyncio.gather(*(asyncio.to_thread(thread) if index % 2 else task() for index in range(20)))

        with virtual_time() as clock:
            asyncio.run(main())
        assert times == pytest.approx([10.0 * index for index in range(20)])

    def test_a_release_wakes_a_thread_that_has_no_time_of_its_own(self):
        limiter = Limiter(concurrency=1)
        permit = limiter.acquire()

        async def main():
            waiting = asyncio.create_task(asyncio.to_thread(limiter.acquire))
            await asyncio.sleep(500)
            permit.release()
            (await waiting).release()
            assert clock.now == pytest.approx(500)

        with virtual_time() as clock:
            asyncio.run(main())

    @pytest.mark.skipif(sys.platform == "win32", reason="there is no shared memory on Windows")
    def test_a_thread_that_listens_to_other_processes_does_not_hold_time_back(self):
        # In a process of its own, since the thread stays to its end. Who holds time back does so for longer than `run`.
        with fresh_store() as store:
            run(f"""
import asyncio, sys, threading
from penstock import Limiter, Rate
from penstock.testing import clock, virtual_time

clock.PATIENCE = 1_000
shared = Limiter(concurrency=1, store={store!r})
held = shared.acquire()
waiting = threading.Thread(target=lambda: shared.acquire().release())
waiting.start()
while not any(frame.f_code.co_name == "_watch" for frame in sys._current_frames().values()):
    pass  # it begins with the first call that waits
held.release()
waiting.join()

async def main():
    limiter = Limiter(requests=Rate(1, 3_600, burst=1, window=False))
    for _ in range(25):
        (await limiter.aacquire()).release()

with virtual_time() as passed:
    asyncio.run(main())
assert 86_400 <= passed.now < 86_401
""")


class TestClock:
    def test_advance_wakes_who_is_due(self):
        async def main():
            task = asyncio.create_task(asyncio.sleep(100))
            await asyncio.sleep(0)
            clock.advance(1_000)
            await task
            assert clock.now == pytest.approx(1_000)

        with virtual_time() as clock:
            asyncio.run(main())
            clock.advance(0)
            clock.advance(0.5)
            assert clock.now == pytest.approx(1_000.5)
            assert repr(clock) == "<VirtualClock at 1000.500000 s>"

    def test_advance_wakes_threads(self):
        limiter = Limiter(requests=per_hour(1), network_jitter=0)
        limiter.acquire()
        times = []

        def wait():
            limiter.acquire()
            times.append(clock.now)

        with virtual_time() as clock:
            thread = threading.Thread(target=wait)
            thread.start()
            until(lambda: limiter.stats().waiting == 1)
            clock.advance(10_000)
            thread.join(30)
        assert times == pytest.approx([10_000])

    @pytest.mark.parametrize("wrong", [-1, float("nan"), "1", None])
    def test_advance_refuses_what_is_no_time(self, wrong):
        with virtual_time() as clock, pytest.raises((TypeError, ValueError), match="seconds"):
            clock.advance(wrong)

    def test_a_clock_outlives_its_block_but_does_not_move_time(self):
        with virtual_time() as clock:
            clock.advance(5)
        assert clock.now >= 5
        with pytest.raises(RuntimeError, match="over"):
            clock.advance(1)

    def test_blocks_nest(self):
        with virtual_time() as outer:
            asyncio.run(asyncio.sleep(10))
            with virtual_time() as inner:
                asyncio.run(asyncio.sleep(5))
                assert (inner.now, outer.now) == (pytest.approx(5), pytest.approx(15))
            asyncio.run(asyncio.sleep(10))
            assert outer.now == pytest.approx(25)

    def test_an_exception_ends_it(self):
        with pytest.raises(ZeroDivisionError), virtual_time():
            asyncio.run(asyncio.sleep(10))
            raise ZeroDivisionError

    def test_limiters_keep_the_time_that_has_passed(self):
        limiter = Limiter(requests=per_hour(1))
        limiter.acquire()
        assert limiter.try_acquire() is None
        with virtual_time() as clock:
            clock.advance(3_700)
        assert limiter.try_acquire() is not None

    def test_threads_left_behind_go_on_in_real_time(self):
        limiter = one_per(0.3)
        limiter.acquire()
        got = []

        def wait():
            limiter.acquire()
            got.append(True)

        with virtual_time():
            thread = threading.Thread(target=wait)
            thread.start()
            until(lambda: limiter.stats().waiting == 1)
        thread.join(30)
        assert got

    def test_it_is_imported_without_aiohttp(self):
        code = """
import sys
sys.modules["aiohttp"] = None
import penstock.testing
assert "penstock.testing.clock" not in sys.modules
with penstock.testing.virtual_time() as clock:
    clock.advance(1)
assert "FakeProvider" in dir(penstock.testing)
for reach in (lambda: penstock.testing.FakeProvider, lambda: __import__("penstock.testing.provider")):
    try:
        reach()
    except ModuleNotFoundError as error:
        assert "pip install 'penstock[testing]'" in str(error), error
    else:
        raise AssertionError("no error")
try:
    penstock.testing.nothing
except AttributeError as error:
    assert "nothing" in str(error)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_the_fake_provider_is_there(self):
        pytest.importorskip("aiohttp")
        from penstock.testing import FakeProvider
        from penstock.testing.provider import FakeProvider as Original

        assert FakeProvider is Original
        assert VirtualClock.__module__ == "penstock.testing.clock"
