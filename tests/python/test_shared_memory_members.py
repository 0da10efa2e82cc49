"""Who is a member of shared memory: as many as there may be, in other namespaces, under a number that another had.

A process is alive as long as it holds a lock on its byte of the file; no number of a process is ever asked for. So
these tests pretend nothing: they make the situations in which numbers mislead. What becomes of processes that are
killed, stopped and forked is in `test_shared_memory.py`.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs, no-check-untyped-defs

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest
from sharing import fresh_store

from penstock import AcquireTimeout, Limiter

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")


@pytest.fixture
def store():
    with fresh_store() as url:
        yield url


def program(code, *command):
    """A program that says on its standard output how far it is, and goes on when a line is written to it."""
    command = [*command, sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def can_unshare() -> bool:
    """Whether a process may be begun here in a namespace of processes of its own."""
    if shutil.which("unshare") is None:
        return False
    return (
        subprocess.run(["unshare", "-p", "-f", "--mount-proc", "true"], capture_output=True, check=False).returncode
        == 0
    )


elsewhere = pytest.mark.skipif(not can_unshare(), reason="unshare --pid is refused here: only root may")
IN_A_NAMESPACE = ["unshare", "-p", "-f", "--mount-proc", "--kill-child"]

HOLD = """
    import os, sys
    from penstock import Limiter
    gate = Limiter(concurrency=4, store={store!r})
    permit = gate.acquire(timeout=20)
    print(os.getpid(), flush=True)
    sys.stdin.readline()
"""


@pytest.mark.slow
@pytest.mark.once
@elsewhere
def test_processes_of_other_namespaces_are_neither_dead_nor_alive_by_their_numbers(store) -> None:
    """Two containers: each has the same number inside, and it is another process outside."""
    gate = Limiter(concurrency=4, store=store)
    here = gate.acquire()
    code = HOLD.format(store=store)
    containers = [program(code, *IN_A_NAMESPACE) for _ in range(2)]
    try:
        numbers = [int(container.stdout.readline()) for container in containers]
        assert numbers[0] == numbers[1] == 1
        assert gate.stats().in_flight == 3
        last = gate.acquire()
        with pytest.raises(AcquireTimeout):
            gate.acquire(timeout=0.7)  # it asks whether the others live, several times: they do
        assert gate.stats().in_flight == 4
        containers[0].kill()  # unshare, and with it what it began
        gate.acquire(timeout=20).release()
        assert gate.stats().in_flight == 3  # the other container's is still there
        containers[1].stdin.write("\n")
        containers[1].stdin.close()
        assert all_free(gate, 2)
        last.release()
        assert gate.stats().in_flight == 1
    finally:
        for container in containers:
            container.kill()
            container.wait()
            container.stdout.close()
            container.stdin.close()
    here.release()


def all_free(gate, slots) -> bool:
    """Whether so many are free, when those that are dead have been looked for."""
    held = []
    with contextlib.suppress(AcquireTimeout):
        held += [gate.acquire(timeout=1) for _ in range(slots)]
    return len(held) == slots


@pytest.mark.slow
@pytest.mark.once
@elsewhere
def test_another_process_under_the_number_of_a_dead_one_does_not_keep_its_permits(store) -> None:
    """In a namespace of its own the next number can be chosen: one that does nothing gets that of a dead holder."""
    code = f"""
        import os, signal
        from penstock import Limiter

        gate = Limiter(concurrency=1, store={store!r})
        reader, writer = os.pipe()
        holder = os.fork()
        if holder == 0:
            permit = gate.acquire()
            os.write(writer, b"x")
            signal.pause()
        os.read(reader, 1)
        assert gate.try_acquire() is None
        os.kill(holder, signal.SIGSTOP)
        assert gate.try_acquire() is None
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        with open("/proc/sys/kernel/ns_last_pid", "w") as last:
            last.write(str(holder - 1))
        idle = os.fork()
        if idle == 0:
            signal.pause()
        assert idle == holder, (idle, holder)
        gate.acquire(timeout=20).release()
        os.kill(idle, 0)  # the number still names a process
        os.kill(idle, signal.SIGKILL)
        print("freed", flush=True)
    """
    process = program(code, *IN_A_NAMESPACE)
    assert process.communicate(timeout=50)[0] == "freed\n"
    assert process.returncode == 0


SCARCE = """
    import os
    from penstock import Limiter, StoreUnavailable

    def room():
        found = os.statvfs("/dev/shm")
        return found.f_bavail

    def use():
        gate = Limiter(requests=60, tokens=1_000, concurrency=3, store="shm://scarce")
        assert gate.try_acquire(1) is not None
        gate.update(requests=70)
        gate.stats()

    pages = room()
    with open("/dev/shm/filler", "wb") as filler:
        for left in [0, 1, 2, 23, 24, 25, 26, 27, 28, 29, 100, 200]:
            filler.truncate(0)
            os.posix_fallocate(filler.fileno(), 0, (pages - left) * 4_096)
            assert room() == left
            try:
                use()
            except StoreUnavailable as error:
                assert "there is no room for it" in str(error) and "--shm-size" in str(error), error
            else:
                raise AssertionError(left)
            assert os.listdir("/dev/shm") == ["filler"] and room() == left
    os.unlink("/dev/shm/filler")
    use()
    print(pages - room(), flush=True)
"""


@pytest.mark.slow
@pytest.mark.once
@elsewhere
def test_where_there_is_no_room_a_process_is_told_and_not_ended(tmp_path) -> None:
    """A page that cannot be had ends a process with SIGBUS: all are reserved before the first is touched."""
    mounted = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=2m none /dev/shm && exec "$@"', "sh"]
    process = program(SCARCE, *mounted)
    pages = int(process.communicate(timeout=50)[0])
    assert process.returncode == 0
    assert pages * 4_096 < 1_250_000


@pytest.mark.slow
@pytest.mark.once
@elsewhere
def test_a_process_whose_clock_is_ahead_of_the_hosts_is_told(store) -> None:
    """That of another time namespace. Those of one of them share."""
    ahead = ["unshare", "-T", "--boottime", "3600", "--monotonic", "3600", "--fork"]
    if subprocess.run([*ahead, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("unshare --time is refused here")
    code = f"""
        from penstock import Limiter, StoreUnavailable, per_hour
        try:
            print(Limiter(requests=per_hour(1), store={store!r}).try_acquire() is not None)
        except StoreUnavailable as error:
            print(error)
    """
    assert [program(code, *ahead).communicate(timeout=50)[0] for _ in range(2)] == ["True\n", "False\n"]
    assert "its times are of another clock" in program(code).communicate(timeout=50)[0]


FULL = """
    import os, signal
    from penstock import Limiter, StoreUnavailable

    gate = Limiter(concurrency=2_000, store={store!r})
    permit = gate.acquire()
    reader, writer = os.pipe()
    children = []
    for _ in range(1_023):
        child = os.fork()
        if child == 0:
            mine = gate.acquire()
            os.write(writer, b"x")
            signal.pause()
        children.append(child)
    there = 0
    while there < len(children):
        there += len(os.read(reader, 2_000))
    print(gate.stats().in_flight, flush=True)

    # One more is told, whether it is made now or was made before a fork; and nothing of it counts.
    try:
        Limiter(concurrency=2_000, store={store!r})
    except StoreUnavailable as error:
        print(error, flush=True)
    one_more = os.fork()
    if one_more == 0:
        try:
            gate.acquire()
        except StoreUnavailable as error:
            print(error, flush=True)
        os._exit(0)
    os.waitpid(one_more, 0)
    print(gate.stats().in_flight, flush=True)

    # Those that are killed make room, for as many; those that live keep theirs.
    for child in children[:1_000]:
        os.kill(child, signal.SIGKILL)
    for child in children[:1_000]:
        os.waitpid(child, 0)
    one_more = os.fork()
    if one_more == 0:
        held = [gate.acquire(timeout=20) for _ in range(1_976)]
        print(gate.stats().in_flight, gate.try_acquire() is None, flush=True)
        os._exit(0)
    os.waitpid(one_more, 0)
    for child in children[1_000:]:
        os.kill(child, signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.timeout(150)
def test_a_thousand_and_twenty_four_processes_share_and_no_more(store) -> None:
    process = program(FULL.format(store=store))
    try:
        lines = process.communicate(timeout=140)[0].splitlines()
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
    assert lines[0] == "1024"
    for told in lines[1:3]:
        assert "1024 limiters in other processes share the memory already, and no more may" in told
        assert "delete the file" not in told
    assert lines[3:] == ["1024", "2000 True"]
