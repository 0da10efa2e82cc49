"""What a store at a distance needs of Python: a thread that listens for those who sleep, log lines, a bounded end."""

from __future__ import annotations

import atexit
import functools
import logging  # not when it is needed: a child that is forked meanwhile could never import it
import select
import threading

from penstock import _core

_listeners: list[threading.Thread] = []


def listen(descriptor: int) -> None:
    """Start the thread that listens for threads, and for event loops that watch no file descriptors.

    It sleeps in Python, as everything does that waits: see `penstock._parking`.
    """
    thread = threading.Thread(target=_listen, args=(descriptor,), name="penstock-bells", daemon=True)
    thread.start()
    _listeners[:] = [thread]  # in a forked child the parent's is no more


def _listen(descriptor: int) -> None:
    sleep = select.poll()
    sleep.register(descriptor, select.POLLIN)
    while True:
        sleep.poll()
        if not _core.heard():
            return


@functools.cache
def register() -> None:
    """See to it that stores are told when the interpreter exits, and that nothing wakes when it is gone."""
    atexit.register(_end)


def _end() -> None:
    _core.retire()
    for thread in _listeners:
        thread.join(2)


def log_away(limiter: str, address: str, why: str, misconfigured: bool, policy: str) -> None:
    """Say once that a store is away."""
    meanwhile = {
        "share": "this process goes on with its share of the limits",
        "open": "everything leaves",
        "closed": "nothing leaves",
    }[policy]
    log = logging.getLogger("penstock")
    if misconfigured:
        if policy != "open":
            meanwhile = "nothing leaves"
        log.error("limiter %r cannot use its store %s: %s; %s", limiter, address, why, meanwhile)
    else:
        log.warning("limiter %r has lost its store %s: %s; until it is back, %s", limiter, address, why, meanwhile)


def log_back(limiter: str, address: str) -> None:
    """Say once that a store is back."""
    logging.getLogger("penstock").warning("limiter %r is back in its store %s", limiter, address)
