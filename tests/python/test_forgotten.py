"""How the collector is sent for. That it is, and finds what SDKs forget, is shown in test_govern_sdks.py."""

from __future__ import annotations

import gc
import itertools
import os
import time

import pytest

from penstock.integrations import forgotten


def test_the_collector_is_called_more_and_more_seldom_where_it_is_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    now = itertools.count(100.0, 0.5)  # half a second for each run
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    monkeypatch.setattr(gc, "collect", lambda: None)
    monkeypatch.setattr(forgotten, "_resting", 0.0)
    monkeypatch.setattr(forgotten, "_in_vain", 0)

    def rest() -> float:
        forgotten._run_collector()
        return forgotten._resting - next(now) + 0.5

    assert [rest() for _ in range(8)] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 32.0, 32.0]

    read = forgotten.Stream()
    read.unwatch()
    assert rest() == 32.0
    left = forgotten.Stream()
    left.looks = 3
    left.unwatch()
    assert rest() == 1.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_child_that_is_forked_while_someone_looks_does_not_wait_for_ever() -> None:
    stream = forgotten.Stream()
    with forgotten._lock:
        child = os.fork()
        if child == 0:
            with forgotten.waiting:
                stream.watch()
                # It has a thread of its own to look.
                os._exit(0 if forgotten._looking is not None and forgotten._looking.is_alive() else 1)
    until = time.monotonic() + 30
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < until:
        time.sleep(0.01)
    if ended == (0, 0):
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert ended == (child, 0)
