"""Limiters and retries that are copied, pickled and written into configurations."""

from __future__ import annotations

import copy
import gc
import inspect
import json
import pickle
import subprocess
import sys
from datetime import timedelta

import pytest

from penstock import Limiter, Rate, Retry, identity, per_day, per_second


def test_a_copy_is_the_limiter_itself() -> None:
    for gate in (Limiter(requests=10), Limiter(requests=10, name="identity-copy")):
        for again in (copy.copy(gate), copy.deepcopy({"gate": [gate]})["gate"][0], pickle.loads(pickle.dumps(gate))):
            assert again is gate


def test_of_two_with_one_name_the_last_is_found() -> None:
    first, second = (Limiter(requests=10, name="identity-twice") for _ in range(2))
    assert pickle.loads(pickle.dumps(first)) is second
    del second


def test_made_up_names_are_not_mistaken_for_given_ones() -> None:
    anonymous = Limiter(requests=10)
    named = Limiter(requests=20, name=anonymous.name)
    assert pickle.loads(pickle.dumps(anonymous)) is anonymous
    assert pickle.loads(pickle.dumps(named)) is named


def test_one_that_is_gone_comes_back_with_its_limits() -> None:
    gate = Limiter(
        requests=[per_second(5), per_day(1_000)],
        tokens=Rate(1_000, per=timedelta(seconds=10), burst=7, window=False),
        concurrency=3,
        per_key={"requests": 2},
        name="identity-gone",
    )
    gate.update(concurrency=4)
    shown, pickled, described = repr(gate), pickle.dumps(gate), json.dumps(identity.describe(gate))
    assert identity.read(Limiter, json.loads(described)) is gate
    del gate
    gc.collect()
    again = pickle.loads(pickled)
    assert repr(again) == shown
    assert again.given["per_key"] == {"requests": 2}
    assert pickle.loads(pickled) is again
    del again
    gc.collect()
    assert repr(identity.read(Limiter, json.loads(described))) == shown


WORKER = """
import multiprocessing, pickle, sys

from penstock import Limiter, StoreUnavailable

def load(pickled):
    limiter = pickle.loads(pickled)
    assert isinstance(limiter, Limiter)
    try:
        with limiter:
            return repr(limiter)
    except StoreUnavailable as error:
        return str(error)

if __name__ == "__main__":
    gate = Limiter(requests=10, name="shared")
    pickled = pickle.dumps(gate)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(load, (pickled,)))
"""


def test_a_worker_gets_no_second_quota(tmp_path: object) -> None:
    script = f"{tmp_path}/worker.py"
    with open(script, "w", encoding="utf-8") as file:
        file.write(WORKER)
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=50, check=True)
    assert run.stdout.strip() == (
        "limiter 'shared' is kept in the memory of the process that made it, and this worker of it would use the quota "
        "once more: give it a store that both share, as in Limiter(..., name='shared', store='shm://shared')"
    )


def test_another_process_gets_one_with_its_limits() -> None:
    gate = Limiter(requests=10, concurrency=2)
    code = f"import pickle; print(repr(pickle.loads({pickle.dumps(gate)!r})))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True)
    assert run.stdout.strip() == repr(gate)


def test_a_retry_is_copied_and_pickled() -> None:
    retry = Retry(attempts=3, initial=0.5, jitter=None, deadline=9, on=ValueError)
    assert copy.deepcopy(retry) is retry
    assert copy.copy(retry) is retry
    assert repr(pickle.loads(pickle.dumps(retry))) == repr(retry)


@pytest.mark.parametrize("thing", [Limiter, Limiter.update])
def test_what_is_shown_is_what_it_takes(thing: object) -> None:
    assert "requests" in str(inspect.signature(thing))  # type: ignore[arg-type]
