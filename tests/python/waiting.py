"""What tests of waiting need."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs, no-check-untyped-defs

import gc
import subprocess
import sys
import time


def until(true, seconds=30):
    """Wait in real time until something is true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.001)


def idle(limiter):
    """Whether nothing is under way and nobody waits."""
    gc.collect()
    stats = limiter.stats()
    return (stats.in_flight, stats.waiting) == (0, 0)


def run(code, *, returncode=0, stderr="", timeout=50):
    """Run a program of its own; give what it printed. It must end so, and write nothing else to stderr."""
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert (done.returncode, done.stderr) == (returncode, stderr), done.stderr[-4_000:]
    return done.stdout
