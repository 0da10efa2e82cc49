"""`map(journal=)`: what one run has done, the next one does not do again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from loops import IDLE, lasting, spent, standing

from penstock import Limiter
from penstock.journal import Journal


def make() -> Limiter:
    return Limiter(requests=lasting(1_000), tokens=lasting(100_000), concurrency=4)


class Calls:
    """A function that counts what it is called with, and fails for some."""

    __qualname__ = "Calls"

    def __init__(self, *failing: Any) -> None:
        self.failing = failing
        self.items: list[Any] = []

    def one(self, item: Any) -> Any:
        self.items.append(item)
        if item in self.failing:
            raise OSError(f"{item} failed")
        return {"item": item, "pair": (item, None)}

    def result(self, item: Any) -> Any:
        return {"item": item, "pair": [item, None]}


def run_map(limiter: Limiter, calls: Calls, items: Any, **terms: Any) -> list[Any]:
    return limiter.map(calls.one, items, **terms)


def run_amap(limiter: Limiter, calls: Calls, items: Any, **terms: Any) -> list[Any]:
    return asyncio.run(limiter.amap(twin(calls), items, **terms))


def run_astream(limiter: Limiter, calls: Calls, items: Any, **terms: Any) -> list[Any]:
    async def main() -> list[Any]:
        results = {index: result async for index, result in limiter.astream(twin(calls), items, **terms)}
        return [results[index] for index in range(len(results))]

    return asyncio.run(main())


def twin(calls: Calls) -> Any:
    async def one(item: Any) -> Any:
        await asyncio.sleep(0)
        return calls.one(item)

    one.__qualname__ = "Calls.one"
    return one


RUNS = pytest.mark.parametrize("run", [run_map, run_amap, run_astream])


@RUNS
def test_a_second_run_goes_on_where_the_first_stopped(run: Any, tmp_path: Path) -> None:
    journal, limiter = tmp_path / "journal", make()
    first = Calls(5)
    with pytest.raises(OSError, match="5 failed"):
        run(limiter, first, range(10), journal=journal)
    before = len(journal.read_text().splitlines()) - 1
    assert 0 < before <= len(first.items) - 1

    second = Calls()
    used = spent(limiter)
    assert run(limiter, second, range(10), journal=journal) == [second.result(item) for item in range(10)]
    assert len(second.items) == 10 - before
    assert 5 in second.items
    assert spent(limiter) - used == 10 - before  # nothing is charged for what is known
    assert standing(limiter) == IDLE

    third = Calls()
    assert run(limiter, third, range(10), journal=str(journal)) == [third.result(item) for item in range(10)]
    assert third.items == []


@RUNS
def test_failures_are_not_written_down(run: Any, tmp_path: Path) -> None:
    journal, limiter = tmp_path / "journal", make()
    results = run(limiter, Calls(2, 3), range(5), journal=journal, return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["dict", "dict", "OSError", "OSError", "dict"]
    again = Calls(3)
    results = run(limiter, again, range(5), journal=journal, return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["dict", "dict", "dict", "OSError", "dict"]
    assert sorted(again.items) == [2, 3]


@RUNS
def test_a_result_is_the_same_in_every_run(run: Any, tmp_path: Path) -> None:
    journal, limiter = tmp_path / "journal", make()
    once = run(limiter, Calls(), ["a", "\ud800", "b\n\u2028\x00"], journal=journal)
    assert run(limiter, Calls(), ["a", "\ud800", "b\n\u2028\x00"], journal=journal) == once


def test_items_are_known_by_what_they_are(tmp_path: Path) -> None:
    journal, limiter = tmp_path / "journal", make()
    items: list[Any] = ["1", 1, 1.5, True, None, {"b": 1, "a": [2]}, "1", "1"]
    calls = Calls()
    limiter.map(calls.one, items, journal=journal)
    assert len(calls.items) == 8  # equal ones are each done

    calls = Calls()
    more: list[Any] = [*reversed(items), {"a": [2], "b": 1}, "1", 2]
    results = limiter.map(calls.one, more, journal=journal)
    # Threads, each with a permit of its own: who of them calls first is not said.
    assert sorted(calls.items, key=repr) == ["1", 2, {"a": [2], "b": 1}]
    assert [result["item"] for result in results] == more


def test_without_a_journal_results_are_left_as_they_are() -> None:
    calls = Calls()
    assert make().map(calls.one, [1]) == [{"item": 1, "pair": (1, None)}]


@pytest.mark.slow
def test_a_line_that_was_cut_short_is_done_again(tmp_path: Path) -> None:
    journal, limiter = tmp_path / "journal", make()
    limiter.map(Calls().one, range(3), journal=journal)
    whole = journal.read_bytes()
    head, *lines = whole.splitlines(keepends=True)
    for cut in range(len(whole)):
        journal.write_bytes(whole[:cut])
        calls = Calls()
        assert len(limiter.map(calls.one, range(3), journal=journal)) == 3
        done, at = 0, len(head)
        for line in lines:
            at += len(line)
            done += at <= cut
        assert len(calls.items) == 3 - done
        kept = journal.read_bytes()
        assert len(kept.splitlines()) == 4
        assert all(json.loads(line) for line in kept.splitlines())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"notes of mine", "no journal of penstock; it is left as it is"),
        (b"notes of mine\nand more\n", "no journal of penstock; it is left as it is"),
        (b'{"name": "penstock"}\n', "no journal of penstock; it is left as it is"),
        (b"[1]\n", "no journal of penstock; it is left as it is"),
        (b'{"penstock_journal": 99, "function": "Calls.one"}\n', "no journal of penstock"),
        (b'{"penstock_journal": 1, "function": "other"}\n', "a map of other, not of Calls.one: give it another path"),
        (b'{"penstock_journal": 1, "function": "Calls.one"}\n{"item": 1}\n', "is damaged: line 2 is "),
        (b'{"penstock_journal": 1, "function": "Calls.one"}\n\xff\xfe\n', "is damaged: line 2 is "),
        (b'{"penstock_journal": 1, "function": "Calls.one"}\n{"item":"a","resu\n{}\n', "is damaged: line 2 is "),
    ],
)
@RUNS
def test_a_file_that_is_something_else_is_left_alone(run: Any, content: bytes, message: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.write_bytes(content)
    calls = Calls()
    with pytest.raises(ValueError, match=message):
        run(make(), calls, [1], journal=journal)
    assert calls.items == []
    assert journal.read_bytes() == content


@RUNS
def test_what_json_cannot_hold_is_refused(run: Any, tmp_path: Path) -> None:
    limiter = make()
    with pytest.raises(TypeError, match=r"items of a map with a journal must be what JSON can hold, not .*Path.*names"):
        run(limiter, Calls(), [Path("a")], journal=tmp_path / "items")
    results = run(limiter, Calls(), [1, Path("a"), 2], journal=tmp_path / "some", return_exceptions=True)
    assert [type(result) for result in results] == [dict, TypeError, dict]

    calls = Calls()
    calls.one = lambda item: {item}  # type: ignore[method-assign]
    with pytest.raises(TypeError, match=r"results of a map with a journal must be what JSON can hold, not \{1\}"):
        run(limiter, calls, [1], journal=tmp_path / "results")
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(TypeError, match="JSON can hold"):
        run(limiter, Calls(), [loop], journal=tmp_path / "loop")
    assert standing(limiter) == IDLE


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with (
        Journal(journal, make),
        pytest.raises(RuntimeError, match="another map uses the journal"),
    ):
        make().map(Calls().one, [1], journal=journal)


@RUNS
def test_a_path_that_cannot_be(run: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run(make(), Calls(), [1], journal=tmp_path / "none" / "journal")
    with pytest.raises(IsADirectoryError):
        run(make(), Calls(), [1], journal=tmp_path)
    with pytest.raises(TypeError, match="journal must be a path or None, not 1"):
        run(make(), Calls(), [1], journal=1)


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = tmp_path / "journal"
    write = os.write
    full = False

    def scarce(file: int, data: bytes) -> int:
        if full:
            if len(data) > 10:
                return write(file, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(os, "write", scarce)
    with Journal(journal, make) as notes:
        notes.note(notes.name(1), "one")
        full = True
        with pytest.raises(OSError, match="No space"):
            notes.note(notes.name(2), "two")
        full = False
        notes.note(notes.name(3), "three")
    assert [json.loads(line).get("result") for line in journal.read_text().splitlines()] == [None, "one", "three"]


SCRIPT = """
import os, sys, time
from penstock import Limiter

def slow(item):
    os.write(1, f"call {item}\\n".encode())
    time.sleep(0.01)
    return item * item

print(sum(Limiter(concurrency=4).map(slow, range(200), journal=sys.argv[1])))
"""


@pytest.mark.slow
@pytest.mark.once
def test_a_run_that_is_killed_again_and_again_gets_there(tmp_path: Path) -> None:
    journal, script = tmp_path / "journal", tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, str(script), str(journal)]
    called: list[int] = []
    output = ""
    for kill in range(50):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        known = len(journal.read_bytes().splitlines()) if journal.exists() else 0
        deadline = time.monotonic() + 30
        # Killed once it has come some way on, five times; then it may finish.
        while kill < 5 and process.poll() is None and time.monotonic() < deadline:
            if journal.exists() and len(journal.read_bytes().splitlines()) >= known + 20:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.001)
        output, _ = process.communicate(timeout=60)
        called += [int(line.split()[1]) for line in output.splitlines() if line.startswith("call")]
        if process.returncode == 0:
            break
    assert output.splitlines()[-1] == str(sum(item * item for item in range(200)))
    assert set(called) == set(range(200))
    # Only what was under way when the process was killed is done again: at most four calls each time.
    assert len(called) <= 200 + 5 * 4
