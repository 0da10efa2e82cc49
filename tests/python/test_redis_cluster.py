"""Limiters over a real cluster: slots that are on their way, and masters that are killed."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs, no-check-untyped-defs

import asyncio
import subprocess
import time

import pytest
from redis_servers import Cluster, fresh_name, limiter_at, messages, slot_of, surprises
from waiting import until

from penstock import per_minute, per_second

pytestmark = [pytest.mark.slow, pytest.mark.once, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as cluster:
        yield cluster


def neighbour_of(name):
    """Another name in the same slot."""
    return next(other for number in range(10**6) if slot_of(other := f"{name}-{number}") == slot_of(name))


def calls(node, command):
    """How often a node was given a command."""
    told = node.command("INFO", "commandstats").decode()
    of = [line for line in told.splitlines() if line.startswith(f"cmdstat_{command}:")]
    return int(of[0].split("calls=")[1].split(",")[0]) if of else 0


def test_a_slot_that_is_half_moved(cluster, caplog):
    name = fresh_name()
    newcomer = neighbour_of(name)

    def limiter(name):
        return limiter_at(
            cluster.url, name, requests=per_minute(60, burst=60), concurrency=2, on_store_failure="closed"
        )

    one = limiter(name)
    held = one.acquire(requests=30, timeout=20)
    source, target, slot = cluster.owner(name)
    of_source, of_target = cluster.identity(source), cluster.identity(target)
    assert b"OK" in target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", of_source)
    assert b"OK" in source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", of_target)
    one.acquire(requests=10, timeout=20).release()  # the key is still where it was
    assert b"OK" in source.command("MIGRATE", "127.0.0.1", target.port, f"penstock:{{{name}}}", 0, 5000)
    # The slot is the one's and the key the other's, for as long as it takes: each call is sent on.
    for _ in range(5):
        one.acquire(requests=2, timeout=20).release()
    assert calls(target, "asking") >= 5
    two = limiter(name)
    assert two.try_acquire(requests=11) is None
    two.acquire(requests=10, timeout=20).release()
    taken = two.acquire(requests=0, timeout=20)
    assert one.try_acquire(requests=0) is None
    # One that there never was is made where the slot will be.
    limiter(newcomer).acquire(timeout=20).release()
    assert target.command("EXISTS", f"penstock:{{{newcomer}}}").startswith(b"-MOVED")
    for node in (target, source, *cluster.nodes):
        node.command("CLUSTER", "SETSLOT", slot, "NODE", of_target)
    assert target.command("EXISTS", f"penstock:{{{newcomer}}}") == b":1\r\n"
    del held
    until(lambda: one.try_acquire(requests=0) is not None)
    assert two.try_acquire(requests=1) is None
    del taken
    assert not messages(caplog, one, two), "it was there all the time"


def test_a_master_that_is_killed_and_its_replica_that_takes_over(cluster, caplog):
    name, rate, burst = fresh_name(), 100, 10
    limits = {"requests": per_second(rate, burst=burst), "concurrency": 12}
    one, two = (limiter_at(cluster.url, name, **limits) for _ in range(2))
    held = [one.acquire(timeout=20) for _ in range(4)]
    two.acquire(timeout=20).release()
    master, _, _ = cluster.owner(name)
    replica = cluster.replicate(master)
    time.sleep(2.6)  # a heartbeat: each knows of the other
    left, waits = [], []

    async def call(limiter, until_when):
        while (began := time.monotonic()) < until_when():
            async with limiter.permit(timeout=30):
                left.append(time.monotonic())
                await asyncio.sleep(0.002)
            waits.append(left[-1] - began)

    async def main():
        end = [time.monotonic() + 60]
        working = [asyncio.ensure_future(call(limiter, lambda: end[0])) for limiter in (one, two) for _ in range(10)]
        await asyncio.sleep(1)
        master.kill()
        # It takes over when the others have missed the master for the node timeout, and both limiters go on there.
        while b"role:master" not in replica.command("INFO", "replication"):
            await asyncio.sleep(0.05)
        taken_over = time.monotonic()
        while not all(
            any(f"{limiter.name!r} is back" in line for line in messages(caplog, limiter)) for limiter in (one, two)
        ):
            assert time.monotonic() < taken_over + 20
            await asyncio.sleep(0.02)
        back_after = time.monotonic() - taken_over
        await asyncio.sleep(1.5)
        end[0] = 0
        await asyncio.gather(*working)  # whoever failed says so here
        return back_after

    began = time.monotonic()
    back_after = asyncio.run(main())
    took = time.monotonic() - began
    print(f"back {back_after:.2f} s after the takeover, {took:.1f} s in all; {len(left) / took:.0f}/s left of {rate}")
    print(f"the longest wait {max(waits):.2f} s")
    assert back_after < 6
    assert max(waits) < 8, "a call hung"
    # In any time, no more than what flows in and a burst; one more for what was lost in the failover.
    for first, at in enumerate(left):
        within = left[min(first + 300, len(left) - 1)] - at
        assert min(300, len(left) - 1 - first) <= within * rate * 1.02 + 2 * burst, (first, within)
    assert len(left) >= (took - 8) * rate * 0.5
    # What was held over it is still held.
    free = [two.acquire(timeout=10) for _ in range(8)]
    assert one.try_acquire() is None
    del free, held
    master.start()  # as a replica
    until(lambda: b"master_link_status:up" in master.command("INFO", "replication"))


def test_a_replica_that_takes_over_by_order(cluster, caplog):
    """`CLUSTER FAILOVER`: nobody may write until the replica has all of it. No call notices, nothing is lost."""
    name, rate, burst = fresh_name(), 100, 10
    limits = {"requests": per_second(rate, burst=burst), "concurrency": 12}
    one, two = (limiter_at(cluster.url, name, **limits) for _ in range(2))
    held = [one.acquire(timeout=20) for _ in range(4)]
    two.acquire(timeout=20).release()
    master, _, _ = cluster.owner(name)
    replica = cluster.replicate(master)
    known = f"{cluster.identity(replica)} ".encode()
    until(lambda: all(known in node.command("CLUSTER", "NODES") for node in cluster.masters()))
    left, waits = [], []

    async def call(limiter, until_when):
        while (began := time.monotonic()) < until_when():
            async with limiter.permit(timeout=30):
                left.append(time.monotonic())
                await asyncio.sleep(0.002)
            waits.append(left[-1] - began)

    async def main():
        end = [time.monotonic() + 60]
        working = [asyncio.ensure_future(call(limiter, lambda: end[0])) for limiter in (one, two) for _ in range(10)]
        await asyncio.sleep(0.5)
        deadline = time.monotonic() + 30
        while b"role:master" not in replica.command("INFO", "replication"):
            assert time.monotonic() < deadline, replica.command("CLUSTER", "NODES")
            replica.command("CLUSTER", "FAILOVER")  # once more if the others did not vote in time
            await asyncio.sleep(0.5)
        await asyncio.sleep(1)
        end[0] = 0
        await asyncio.gather(*working)

    began = time.monotonic()
    asyncio.run(main())
    took = time.monotonic() - began
    print(f"{len(left) / took:.0f}/s left of {rate} in {took:.1f} s, the longest wait {max(waits):.2f} s")
    left.sort()
    # In any time, no more than what flows in and a burst: what the old master knew the new one knows. A vote that comes
    # too late holds everybody up for so long that each goes on with its share meanwhile.
    bursts = 3 if messages(caplog, one, two) else 1
    for first, at in enumerate(left):
        within = left[min(first + 100, len(left) - 1)] - at
        assert min(100, len(left) - 1 - first) <= within * rate * 1.02 + bursts * burst + 5, (first, within)
    free = [two.acquire(timeout=10) for _ in range(8)]
    until(lambda: one.try_acquire() is None)
    del free, held
    assert not surprises(caplog, one, two), "no call met a server that takes no writes"


def test_slots_that_move_under_load(cluster):
    names = [fresh_name() for _ in range(6)]
    limiters = [limiter_at(cluster.url, name, requests=per_minute(60, burst=60), concurrency=2) for name in names]
    for limiter in limiters:
        limiter.acquire(requests=50, timeout=20).release()
    others = [limiter_at(cluster.url, name, requests=per_minute(60, burst=60), concurrency=2) for name in names]
    for other in others:
        assert other.try_acquire(requests=20) is None
        assert other.acquire(requests=5, timeout=20) is not None
    # The slots of one node go to another, while calls come: MOVED and ASK.
    first, second = cluster.masters()[:2]
    identities = [cluster.identity(node) for node in (first, second)]
    moving = subprocess.Popen(
        ["redis-cli", "--cluster", "reshard", f"127.0.0.1:{first.port}", "--cluster-from", identities[0]]
        + ["--cluster-to", identities[1], "--cluster-slots", "3000", "--cluster-yes"],
        stdout=subprocess.DEVNULL,
    )
    count = 0
    while moving.poll() is None:
        limiter = limiters[count % len(limiters)]
        limiter.acquire(requests=0, timeout=20).release()
        count += 1
    assert moving.returncode == 0
    assert count > 1
    for limiter in limiters:
        assert limiter.try_acquire(requests=40) is None  # what was charged was not lost
