"""What operators do to a server that limiters use: clocks that are set, memory that is full, rights that are taken."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs, no-check-untyped-defs

import logging
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis_servers import Server, fresh_name, is_back, limiter_at, messages, surprises
from waiting import until

from penstock import StoreUnavailable, per_minute, per_second

pytestmark = [pytest.mark.slow, pytest.mark.once]

HERE = Path(__file__).parent


class Clock:
    """The time of day of a server that is started with its environment."""

    def __init__(self, directory):
        self.file, library = directory / "shift", directory / "shifted_clock.so"
        self.set(0)
        compiler = shutil.which("cc")
        if compiler is None or not sys.platform.startswith("linux"):
            pytest.skip("a server's clock is shifted by a library that is preloaded, for which Linux and cc are needed")
        source = HERE / "shifted_clock.c"
        subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, source], check=True, timeout=60)
        self.environment = {**os.environ, "LD_PRELOAD": str(library), "PENSTOCK_CLOCK_SHIFT": str(self.file)}

    def set(self, seconds):
        """Shift the clock so far from the true time."""
        # In one write: the server sees the old time or the new one.
        with self.file.open("r+b" if self.file.exists() else "wb") as file:
            file.write(struct.pack("q", int(seconds * 1e9)))


def leave(limiter, seconds):
    """How many calls leave in that time, one after another."""
    left, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        limiter.acquire(timeout=20).release()
        left += 1
    return left


def server_time(server):
    return int(server.command("TIME").split(b"\r\n")[2])


def test_a_servers_clock_is_set_back_and_forward(tmp_path, caplog):
    clock = Clock(tmp_path)
    with Server(environment=clock.environment) as server:
        clock.set(-10_000)
        if server_time(server) > time.time() - 5_000:
            assert "PENSTOCK_REDIS_SERVER" in os.environ, "the shim does nothing"
            pytest.skip("this server asks the system for the time in a way of its own")
        clock.set(0)
        name, rate, burst = fresh_name(), 100, 20
        limits = {"requests": per_second(rate, burst=burst), "concurrency": 3}
        one, two = (limiter_at(server.url, name, **limits) for _ in range(2))
        held = [one.acquire(timeout=10), two.acquire(timeout=10)]
        for shift in (-3_600, -7_200, 100):
            clock.set(shift)
            began = time.monotonic()
            left = leave(one, 0.4) + leave(two, 0.4)
            took = time.monotonic() - began
            # No burst beyond the one that a jump may have filled; and no standstill, or `leave` had failed.
            assert left <= rate * took * 1.02 + 2 * burst, (shift, left, took)
            spare = one.acquire(timeout=10)
            assert two.try_acquire() is None, "nobody was declared dead for it"
            spare.release()
        # Forward by more than the key is kept: as a state that was lost.
        clock.set(100_000)
        began = time.monotonic()
        left = leave(one, 0.4) + leave(two, 0.4)
        took = time.monotonic() - began
        assert left <= rate * took * 1.02 + 2 * burst, (left, took)
        spare = one.acquire(timeout=10)
        assert two.try_acquire() is None
        del held, spare
        assert not surprises(caplog, one, two)


def test_memory_that_is_full_is_an_outage(caplog):
    with Server("--maxmemory-policy", "noeviction") as server:
        limiter = limiter_at(server.url, requests=per_second(1_000), concurrency=4)
        limiter.acquire(timeout=10).release()
        server.command("CONFIG", "SET", "maxmemory", "1")
        until(lambda: limiter.acquire(timeout=10) and any("OOM" in line for line in messages(caplog, limiter)))
        leave(limiter, 0.2)
        server.command("CONFIG", "SET", "maxmemory", "0")
        until(lambda: is_back(caplog, limiter))
        assert len(surprises(caplog, limiter)) == 1


def test_a_state_that_is_evicted_frees_no_burst(caplog):
    with Server("--maxmemory-policy", "allkeys-random") as server:
        rate, burst = 100, 50
        limiter = limiter_at(server.url, requests=per_minute(60 * rate, burst=burst), concurrency=2)
        key = f"penstock:{{{limiter.name}}}"
        held = limiter.acquire(timeout=10)
        for _ in range(burst - 1):
            limiter.acquire(requests=1, timeout=10).release()
        server.command("CONFIG", "SET", "maxmemory", "4mb")
        began, left, evicted, number = time.monotonic(), 0, 0, 0
        while evicted < 3:
            assert time.monotonic() < began + 30, "it was never evicted"
            number += 1
            server.command("SET", f"other-{number}", b"x" * 400_000)
            evicted += server.command("EXISTS", key) == b":0\r\n"
            limiter.acquire(timeout=10).release()
            left += 1
        took = time.monotonic() - began
        assert left <= rate * took * 1.02 + burst, (left, took)
        server.command("CONFIG", "SET", "maxmemory", "0")
        server.command("FLUSHALL")
        spare = limiter.acquire(timeout=10)
        assert limiter.try_acquire() is None, "what is held is still known"
        del held, spare
        assert not surprises(caplog, limiter)


def test_connections_that_are_killed_and_clients_that_are_paused(caplog):
    with Server() as server:
        name = fresh_name()
        limits = {"requests": per_second(1_000, burst=10), "concurrency": 2}
        one, two = (limiter_at(server.url, name, **limits) for _ in range(2))
        held = one.acquire(timeout=10)
        two.acquire(timeout=10).release()
        server.command("CLIENT", "PAUSE", "300", "ALL")
        began = time.monotonic()
        two.acquire(timeout=10).release()
        assert time.monotonic() - began >= 0.1
        assert not surprises(caplog, one, two), "a pause that is shorter than an answer may take"
        assert b"-" not in server.command("CLIENT", "KILL", "TYPE", "normal")[:1]
        server.command("CLIENT", "KILL", "TYPE", "pubsub")  # as what they count that listen as well
        for limiter in (one, two):
            until(lambda limiter=limiter: is_back(caplog, limiter))
        spare = two.acquire(timeout=10)
        until(lambda: one.try_acquire() is None)  # what was held is held over it
        del held, spare
        assert len(surprises(caplog, one, two)) == 2


def test_a_password_that_is_changed_holds_for_the_next_connection(caplog):
    with Server() as server:
        limiter = limiter_at(server.url, requests=per_second(1_000), on_store_failure="share")
        limiter.acquire(timeout=10).release()
        server.command("CONFIG", "SET", "requirepass", "new")
        limiter.acquire(timeout=10).release()
        assert not surprises(caplog, limiter), "who is there stays"
        auth = subprocess.run(
            ["redis-cli", "-p", str(server.port), "--no-auth-warning", "-a", "new", "CLIENT", "KILL", "TYPE", "pubsub"],
            check=True,
            capture_output=True,
            timeout=20,
        )
        assert auth.stdout.strip() == b"1"
        until(lambda: limiter.acquire(timeout=10) and surprises(caplog, limiter))
        subprocess.run(
            ["redis-cli", "-p", str(server.port), "--no-auth-warning", "-a", "new", "CONFIG", "SET", "requirepass", ""],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=20,
        )
        until(lambda: is_back(caplog, limiter))


def replica_of(master):
    return Server("--replicaof", "127.0.0.1", str(master.port))


def test_a_replica_refuses_writes_until_it_is_a_master(caplog):
    with Server("--repl-diskless-sync-delay", "0") as master, replica_of(master) as replica:
        until(lambda: b"master_link_status:up" in replica.command("INFO", "replication"))
        limiter = limiter_at(replica.url, requests=per_second(1_000))
        limiter.acquire(timeout=10).release()
        until(lambda: limiter.acquire(timeout=10) and any("read only" in line for line in messages(caplog, limiter)))
        replica.command("CONFIG", "SET", "replica-serve-stale-data", "no")
        master.kill()
        leave(limiter, 0.3)  # it says MASTERDOWN now
        assert len(surprises(caplog, limiter)) == 1
        replica.command("REPLICAOF", "NO", "ONE")
        until(lambda: is_back(caplog, limiter))


RIGHTS = ["resetchannels", "~penstock:*", "&penstock:*", "+@scripting", "+@read", "+@write", "+publish", "+subscribe"]


@pytest.mark.parametrize("command", ["evalsha", "subscribe", "hmget", "hset", "time", "pexpire"])
def test_a_command_that_the_user_may_not_use_is_named(acl_server, caplog, command):
    user = f"no-{command}"
    rights = [*RIGHTS, "+time", f"-{command}"]
    assert b"OK" in acl_server.command("ACL", "SETUSER", user, "on", ">s3cret", "resetkeys", "-@all", *rights)
    limiter = limiter_at(f"redis://{user}:s3cret@127.0.0.1:{acl_server.port}", requests=5)
    with pytest.raises(StoreUnavailable, match=rf"(?i){command}"):
        limiter.acquire(timeout=10)
    until(lambda: messages(caplog, limiter, level=logging.ERROR))
    assert len(messages(caplog, limiter)) == 1
    assert "s3cret" not in caplog.text


@pytest.fixture(scope="module")
def acl_server():
    with Server() as server:
        yield server


@pytest.mark.parametrize(("command", "named"), [("EVALSHA", "EVALSHA"), ("EVAL", "EVAL"), ("HSET", "command")])
def test_a_command_that_was_renamed_is_named(caplog, command, named):
    with Server("--rename-command", command, "") as server:
        limiter = limiter_at(server.url, requests=5)
        with pytest.raises(StoreUnavailable, match=rf"(?i)unknown.*{named}"):
            limiter.acquire(timeout=10)
        until(lambda: messages(caplog, limiter, level=logging.ERROR))


def test_a_log_that_is_rewritten_and_a_server_that_reads_it_again(caplog):
    with Server(keep=True) as server:
        name = fresh_name()
        limiter = limiter_at(server.url, name, requests=per_minute(600, burst=600), concurrency=3)
        held = limiter.acquire(requests=500, timeout=10)
        assert b"+Background" in server.command("BGREWRITEAOF")
        limiter.acquire(requests=50, timeout=10).release()
        until(lambda: b"aof_rewrite_in_progress:0" in server.command("INFO", "persistence"))
        limiter.acquire(requests=40, timeout=10).release()
        server.kill()
        server.start()
        until(lambda: is_back(caplog, limiter))
        # All of it is known: whoever comes new is told so.
        newcomer = limiter_at(server.url, name, requests=per_minute(600, burst=600), concurrency=3)
        assert newcomer.try_acquire(requests=100) is None
        spare = [newcomer.acquire(requests=0, timeout=10) for _ in range(2)]
        assert newcomer.try_acquire(requests=0) is None
        del held, spare
