"""Event loops that come and go: many in a row, several at once, closed with calls in them, none at all, and trio's."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs, no-check-untyped-defs

import asyncio
import contextlib
import contextvars
import gc
import sys
import threading
import time
import weakref

import pytest
from loops import LOOPS, new_loop
from waiting import idle, run, until

from penstock import AcquireTimeout, Limiter, Rate, per_second
from penstock.testing import virtual_time

LIMITER = Limiter(concurrency=2, requests=per_second(1_000_000), name="made at import time")


async def one(limiter, key=None):
    async with limiter.permit(key=key):
        await asyncio.sleep(0)


async def wait(limiter):
    (await limiter.aacquire()).release()


@contextlib.contextmanager
def held(limiter):
    """A permit that encloses nothing: whoever asks meanwhile must wait."""
    permit = limiter.acquire()
    try:
        yield
    finally:
        permit.release()


def run_in(kind, main):
    loop = new_loop(kind)
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


@pytest.mark.parametrize("kind", LOOPS)
class TestManyLoops:
    def test_a_limiter_made_at_import_time(self, kind):
        async def main():
            await asyncio.gather(*(one(LIMITER) for _ in range(50)))

        run_in(kind, main())
        run_in(kind, main())
        assert idle(LIMITER)

    def test_a_thousand_in_a_row(self, kind):
        limiter = Limiter(concurrency=1)

        async def main():
            await asyncio.gather(one(limiter), one(limiter), one(limiter))

        loops = weakref.WeakSet()
        for _ in range(1_000):
            loop = new_loop(kind)
            loops.add(loop)
            loop.run_until_complete(main())
            loop.close()
        del loop
        assert idle(limiter)
        assert limiter.stats().granted == 3_000
        assert not loops

    def test_one_inside_of_another(self, kind):
        """A synchronous tool of an agent that runs a loop of its own in a thread while the outer one waits."""
        limiter = Limiter(concurrency=2)

        async def inner():
            await asyncio.gather(*(one(limiter) for _ in range(10)))

        async def outer():
            async with limiter:
                thread = threading.Thread(target=run_in, args=(kind, inner()))
                thread.start()
                thread.join(20)
                assert not thread.is_alive()
            await asyncio.gather(*(one(limiter) for _ in range(10)))

        run_in(kind, outer())
        assert idle(limiter)

    def test_several_at_once(self, kind):
        limiter = Limiter(concurrency=3, per_key={"concurrency": 2}, requests=per_second(1_000_000))

        async def main():
            await asyncio.gather(*(one(limiter, key=str(index % 3)) for index in range(200)))

        threads = [threading.Thread(target=run_in, args=(kind, main())) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(40)
            assert not thread.is_alive()
        assert idle(limiter)
        assert limiter.stats().granted == 1_200

    def test_a_rate_with_several_at_once(self, kind):
        """Whoever comes first goes first, in whichever loop; each is woken in time."""
        limiter = Limiter(requests=Rate(50, 1, burst=1, window=False))
        started = time.monotonic()

        async def main():
            await asyncio.gather(*(wait(limiter) for _ in range(5)))

        threads = [threading.Thread(target=run_in, args=(kind, main())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(40)
            assert not thread.is_alive()
        assert 0.379 <= time.monotonic() - started < 20
        assert idle(limiter)

    def test_limits_of_a_key_of_which_only_another_loop_knows(self, kind):
        """The waiter is set free by a release elsewhere, and then has to wait for its key's rate."""
        limiter = Limiter(per_key={"concurrency": 1, "requests": Rate(5, 1, burst=1, window=False)})
        started = time.monotonic()
        permit = limiter.acquire(key="a")

        async def main():
            await limiter.aacquire(key="a")

        thread = threading.Thread(target=run_in, args=(kind, main()))
        thread.start()
        until(lambda: limiter.stats().waiting == 1)
        permit.release()
        thread.join(20)
        assert not thread.is_alive()
        assert time.monotonic() - started >= 0.19
        assert idle(limiter)

    def test_a_loop_that_stops_and_goes_on(self, kind):
        limiter = Limiter(concurrency=1)
        permit = limiter.acquire()
        loop = new_loop(kind)
        task = loop.create_task(one(limiter))
        loop.run_until_complete(asyncio.sleep(0))
        permit.release()  # from outside, while the loop does not run
        assert (limiter.stats().in_flight, limiter.stats().waiting) == (1, 0)
        loop.run_until_complete(task)
        loop.close()
        assert idle(limiter)

    def test_closed_with_calls_in_it(self, kind):
        """asyncio says of tasks that they were destroyed; of what waited nothing is left, and others go on."""
        limiter = Limiter(concurrency=1)
        permit = limiter.acquire()
        said = []

        def report(_, context):
            said.append(context["message"])

        loop = new_loop(kind)
        loop.set_exception_handler(report)
        tasks = [loop.create_task(one(limiter)) for _ in range(20)]
        loop.run_until_complete(asyncio.sleep(0))
        assert limiter.stats().waiting == 20
        gone = weakref.ref(loop) if kind == "asyncio" else lambda: None
        loop.close()
        permit.release()
        run_in(kind, one(limiter))
        assert limiter.stats().waiting == 0
        tasks.clear()
        del loop
        assert idle(limiter)
        assert gone() is None
        assert said == ["Task was destroyed but it is pending!"] * 20

    def test_closed_while_a_permit_is_under_way(self, kind):
        """Granted, but the task has not run since: its loop was closed first."""
        limiter = Limiter(concurrency=1)
        permit = limiter.acquire()
        loop = new_loop(kind)
        loop.set_exception_handler(lambda _, context: None)
        task = loop.create_task(wait(limiter))
        loop.run_until_complete(asyncio.sleep(0))
        loop.call_soon(permit.release)
        loop.call_soon(loop.stop)
        loop.run_forever()
        if kind == "asyncio":  # uvloop goes round once more
            assert limiter.stats().in_flight == 1
        loop.close()
        del task, loop, permit
        assert idle(limiter)
        run_in(kind, one(limiter))

    def test_numbers_notice_that_a_loop_is_closed(self, kind):
        limiter = Limiter(concurrency=1)
        with held(limiter):
            loop = new_loop(kind)
            loop.set_exception_handler(lambda _, context: None)
            task = loop.create_task(one(limiter))
            loop.run_until_complete(asyncio.sleep(0))
            assert "1 waiting" in repr(limiter)
            loop.close()
            assert "0 waiting" in repr(limiter)
        del task
        assert idle(limiter)

    def test_debug_mode(self, kind):
        limiter = Limiter(concurrency=1, requests=Rate(200, 1, burst=1, window=False))

        async def main():
            tasks = [asyncio.ensure_future(one(limiter)) for _ in range(10)]
            thread = threading.Thread(target=lambda: [limiter.acquire().release() for _ in range(10)])
            thread.start()
            await asyncio.gather(*tasks)
            await asyncio.to_thread(thread.join, 20)
            with pytest.raises(AcquireTimeout):
                async with limiter:
                    await contextvars.Context().run(lambda: asyncio.ensure_future(limiter.aacquire(timeout=0.01)))

        loop = new_loop(kind)
        loop.set_debug(True)
        loop.slow_callback_duration = 60
        loop.run_until_complete(main())
        loop.close()
        assert idle(limiter)

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks")
    def test_eager_tasks(self, kind):
        if kind == "uvloop" and sys.version_info >= (3, 13):
            pytest.skip("uvloop gives task factories an argument that asyncio's own does not know before 3.13.3")
        limiter = Limiter(concurrency=2, requests=Rate(500, 1, burst=5, window=False))

        async def main():
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
            assert asyncio.create_task(wait(limiter)).done()  # there is room: it is over before it is a task
            order = []

            async def numbered(index):
                async with limiter.permit():
                    order.append(index)
                    await asyncio.sleep(0)

            tasks = [asyncio.create_task(numbered(index)) for index in range(20)]
            cancelled = asyncio.create_task(numbered(None))
            cancelled.cancel()
            await asyncio.gather(*tasks)
            assert order == list(range(20))
            assert await limiter.gather(*(asyncio.sleep(0, index) for index in range(5))) == list(range(5))

        run_in(kind, main())
        assert idle(limiter)


class TestNoLoop:
    def test_a_permit_that_is_there_needs_no_loop(self):
        limiter = Limiter(concurrency=1)
        with pytest.raises(StopIteration) as done:
            limiter.aacquire().send(None)
        done.value.value.release()
        assert idle(limiter)

    def test_waiting_does(self):
        limiter = Limiter(concurrency=1)
        with held(limiter):
            waiting = limiter.aacquire()
            assert limiter.stats().waiting == 1
            with pytest.raises(RuntimeError, match="neither an asyncio event loop nor trio"):
                waiting.__await__().send(None)
            assert limiter.stats().waiting == 0
            entering = one(limiter)
            with pytest.raises(RuntimeError, match="neither an asyncio event loop nor trio"):
                entering.send(None)
            assert limiter.stats().waiting == 0
        assert idle(limiter)

    def test_one_that_was_begun_in_a_loop_and_goes_on_outside(self):
        limiter = Limiter(concurrency=1)

        async def main():
            return limiter.aacquire().__await__()

        with held(limiter):
            iterator = asyncio.run(main())
            assert limiter.stats().waiting == 1
            with pytest.raises(RuntimeError, match="outside of a running event loop"):
                iterator.send(None)
            assert limiter.stats().waiting == 0
        assert idle(limiter)

    def test_one_that_moves_from_a_dead_loop_to_another(self):
        limiter = Limiter(concurrency=1)

        async def begin():
            iterator = limiter.aacquire().__await__()
            next(iterator)
            return iterator

        async def go_on(iterator):
            with pytest.raises(RuntimeError, match="this wait is over"):
                next(iterator)

        with held(limiter):
            iterator = asyncio.run(begin())
            assert limiter.stats().waiting == 0  # the loop is closed
            asyncio.run(go_on(iterator))
        assert idle(limiter)

    def test_an_awaitable_that_nobody_awaits(self):
        limiter = Limiter(concurrency=1)
        with held(limiter):
            waiting = [limiter.aacquire() for _ in range(10)]
            assert limiter.stats().waiting == 10
            waiting.clear()
            gc.collect()
            assert limiter.stats().waiting == 0

    def test_an_awaitable_made_in_one_loop_and_awaited_in_the_next(self):
        limiter = Limiter(concurrency=1)
        permit = limiter.acquire()

        async def make():
            return limiter.aacquire()

        waiting = asyncio.run(make())

        async def main():
            asyncio.get_running_loop().call_soon(permit.release)
            (await waiting).release()

        asyncio.run(main())
        assert idle(limiter)

    def test_asyncio_is_not_imported_for_threads(self):
        run("""
import sys
from penstock import Limiter, Rate
limiter = Limiter(requests=Rate(100, 1, burst=1, window=False))
for _ in range(3):
    limiter.acquire().release()
assert "asyncio" not in sys.modules
""")


class TestTrio:
    @pytest.fixture(autouse=True)
    def trio(self):
        self.trio = pytest.importorskip("trio")

    def test_with_room(self):
        limiter = Limiter(concurrency=1)

        async def main():
            async with limiter as permit:
                assert permit.waited == 0
            (await limiter.aacquire()).release()

            @limiter.limit()
            async def call():
                return 7

            assert await call() == 7

        self.trio.run(main)
        assert idle(limiter)

    def test_waiting_in_order(self):
        limiter = Limiter(concurrency=1)
        served = []

        async def work(index):
            async with limiter.permit():
                served.append(index)
                await self.trio.lowlevel.checkpoint()

        async def main():
            async with self.trio.open_nursery() as nursery:
                permit = await limiter.aacquire()
                for index in range(20):
                    nursery.start_soon(work, index)
                    while limiter.stats().waiting < index + 1:
                        await self.trio.lowlevel.checkpoint()
                permit.release()

        self.trio.run(main)
        assert served == list(range(20))
        assert idle(limiter)

    def test_a_rate(self):
        limiter = Limiter(requests=Rate(50, 1, burst=1, window=False), per_key={"requests": Rate(20, 1, burst=1)})

        async def work(key):
            (await limiter.aacquire(key=key)).release()

        async def main():
            async with self.trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(work, "a")
                    nursery.start_soon(work, "b")

        started = time.monotonic()
        self.trio.run(main)
        assert 0.139 <= time.monotonic() - started < 20
        assert idle(limiter)

    def test_cancellation(self):
        limiter = Limiter(concurrency=1)

        async def main():
            permit = await limiter.aacquire()
            with self.trio.move_on_after(0.05) as scope:
                await limiter.aacquire()
            assert scope.cancelled_caught
            assert limiter.stats().waiting == 0
            with self.trio.move_on_after(0.05):
                async with limiter.permit():
                    raise AssertionError("never")
            assert limiter.stats().waiting == 0
            # Granted and cancelled in the same turn.
            with self.trio.CancelScope() as scope:
                async with self.trio.open_nursery() as nursery:
                    nursery.start_soon(self.wait, limiter)
                    while limiter.stats().waiting == 0:
                        await self.trio.lowlevel.checkpoint()
                    permit.release()
                    scope.cancel()

        self.trio.run(main)
        assert idle(limiter)

    async def wait(self, limiter):
        async with limiter.permit():
            await self.trio.lowlevel.checkpoint()

    def test_timeouts(self):
        limiter = Limiter(concurrency=1)

        async def main():
            permit = await limiter.aacquire()
            for ask in (limiter.aacquire, limiter.permit):
                started = time.monotonic()
                with pytest.raises(AcquireTimeout):
                    if ask is limiter.permit:
                        async with limiter.permit(timeout=0.1):
                            pass
                    else:
                        await limiter.aacquire(timeout=0.1)
                assert 0.1 <= time.monotonic() - started < 10
            permit.release()

        self.trio.run(main)
        assert limiter.stats().timeouts == 2
        assert idle(limiter)

    def test_a_release_in_a_thread(self):
        limiter = Limiter(concurrency=1)
        permit = limiter.acquire()

        def release():
            until(lambda: limiter.stats().waiting == 2)
            permit.release()

        async def main():
            async with self.trio.open_nursery() as nursery:
                nursery.start_soon(self.wait, limiter)
                nursery.start_soon(self.wait, limiter)

        thread = threading.Thread(target=release)
        thread.start()
        self.trio.run(main)
        thread.join(20)
        assert idle(limiter)

    def test_trio_asyncio_and_threads_on_one_limiter(self):
        limiter = Limiter(concurrency=2, requests=per_second(1_000_000))

        async def in_trio():
            async with self.trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(self.wait, limiter)

        async def in_asyncio():
            await asyncio.gather(*(one(limiter) for _ in range(50)))

        def in_thread():
            for _ in range(50):
                with limiter.permit():
                    pass

        targets = [lambda: self.trio.run(in_trio), lambda: asyncio.run(in_asyncio()), in_thread]
        threads = [threading.Thread(target=target) for target in targets * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert idle(limiter)
        assert limiter.stats().granted == 300

    def test_a_run_that_ends_leaves_nothing(self):
        limiter = Limiter(concurrency=1)
        permit = limiter.acquire()

        async def main():
            async with self.trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(self.wait, limiter)
                while limiter.stats().waiting < 5:
                    await self.trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()

        self.trio.run(main)
        assert limiter.stats().waiting == 0
        permit.release()
        assert idle(limiter)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio(backend):
    anyio = pytest.importorskip("anyio")
    pytest.importorskip(backend)
    limiter = Limiter(concurrency=2, requests=Rate(200, 1, burst=2, window=False))

    async def work():
        async with limiter.permit():
            await anyio.sleep(0.001)

    async def main():
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(work)
        permits = [await limiter.aacquire(), await limiter.aacquire()]
        with anyio.move_on_after(0.05) as scope:
            await limiter.aacquire()
        assert scope.cancelled_caught
        with pytest.raises(AcquireTimeout):
            await limiter.aacquire(timeout=0.01)
        for permit in permits:
            permit.release()

    anyio.run(main, backend=backend)
    assert idle(limiter)


def test_a_loop_is_woken_no_more_often_than_someone_is_due():
    """No polling: iterations of a loop in which a hundred wait for an hour."""
    turns = 0

    class Loop(asyncio.SelectorEventLoop):
        def _run_once(self):
            nonlocal turns
            turns += 1
            super()._run_once()

    async def main():
        nonlocal turns
        limiter = Limiter(requests=Rate(1, 36, burst=1, window=False))
        tasks = [asyncio.ensure_future(wait(limiter)) for _ in range(101)]
        await asyncio.sleep(0)
        turns = 0
        await asyncio.wait(tasks)

    with virtual_time() as clock:
        loop = Loop()
        loop.run_until_complete(main())
        loop.close()
        assert clock.now == pytest.approx(3_600)
    # The timer, the task that it wakes, and the word of the task that it is done.
    assert turns <= 3 * 100 + 5
