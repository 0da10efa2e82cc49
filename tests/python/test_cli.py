"""``penstock``: its help, its demo from end to end, and options that cannot be."""

import importlib.util
import io
import re
import subprocess
import sys
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from penstock import Limiter, Rate
from penstock.cli import demo, main
from penstock.cli.patterns import PATTERNS
from penstock.cli.run import Run, optimum
from penstock.cli.scoreboard import Scoreboard, closing, remarks, table
from penstock.cli.server import Server
from penstock.cli.workload import calls
from penstock.testing.provider.log import ArrivalLog

#: Two seconds of small calls.
SMALL = [
    *("--calls", "24", "--requests", "600", "--tokens", "60000", "--usual", "50", "--largest", "500"),
    *("--latency", "0.05"),
]


def server(**changed: Any) -> Server:
    given: dict[str, Any] = {
        "requests": 600,
        "tokens": 60_000,
        "per": 60.0,
        "enforcement": "token_bucket",
        "burst": 1.5,
        "sub_window": 1.0,
        "latency": 0.05,
        "network_jitter": 0.0,
        "seed": 0,
    }
    return Server(**given | changed)


# Help


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"]])
def test_help_names_what_there_is(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "demo" in printed
    if len(arguments) > 1:
        for option in ("--requests", "--tokens", "--calls", "--seed", "--enforcement", "--pattern", "--told"):
            assert option in printed
        assert "(default: 300)" in printed
        assert max(map(len, printed.splitlines())) <= 120


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "penstock", "demo", "--calls", "none"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--calls: must be a whole number from 1 to 100000, not 'none'" in done.stderr


def test_the_parts_of_the_demo_are_not_imported_before_it_runs() -> None:
    source = "import sys, penstock.cli; print({'openai', 'aiohttp', 'rich', 'tenacity'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Bad options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "arguments are required: COMMAND"),
        ("dmeo", "invalid choice: 'dmeo'"),
        ("demo --calls 0", "--calls: must be a whole number from 1 to 100000, not '0'"),
        ("demo --calls 2.5", "--calls: must be a whole number from 1 to 100000, not '2.5'"),
        ("demo --tokens -1", "--tokens: must be a whole number of at least 1, not '-1'"),
        ("demo --per nan", "--per: must be a number of at least 0.001, not 'nan'"),
        ("demo --latency inf", "--latency: must be a number of at least 0, not 'inf'"),
        ("demo --streamed 1.1", "--streamed: must be a number from 0 to 1, not '1.1'"),
        ("demo --seed x", "--seed: invalid int value: 'x'"),
        ("demo --pattern polling", "invalid choice: 'polling'"),
        ("demo --enforcement leaky", "invalid choice: 'leaky'"),
        ("demo --tokens 3", "is never admitted; see --tokens, --burst and --largest"),
        ("demo --largest 20000 --usual 20000", "a request of 20000 tokens is too large"),
        ("demo --enforcement sub_window --sub-window 7", "sub_window must divide per=60 s into whole windows, not 7.0"),
    ],
)
def test_what_cannot_be_is_told_with_its_value(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments.split())
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name in ("openai", "rich") else found(name, *more)
    )
    with pytest.raises(SystemExit) as ended:
        main(["demo"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "penstock demo: needs openai, rich: pip install 'penstock[demo]'\n"


def test_ctrl_c_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run", interrupted)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err == "\npenstock: interrupted\n"


# Runs


def row(printed: str, name: str) -> list[str]:
    """Read a row of the closing table: all columns behind the pattern's name."""
    (line,) = [line for line in printed.splitlines() if re.match(rf"{re.escape(name)}\s+\d", line)]
    return line[len(name) :].split()


@pytest.mark.slow
def test_the_demo_runs_from_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    # Without refusals, if the machine is not too busy.
    assert main(["demo", *SMALL, "--pattern", "gather", "--pattern", "penstock"]) in (0, 1)
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "\x1b" not in captured.out  # no terminal: no live line, no colour
    assert "600 requests and 60,000 tokens per 60 s, in token buckets of 1.5 s" in captured.out
    answered, failed, sent, refused = row(captured.out, "Penstock @limit")[1:5]
    assert int(answered) + int(failed) == 24
    assert int(sent) == int(answered) + int(refused)
    assert int(refused) < 3
    _, answered, failed, sent, refused = row(captured.out, "asyncio.gather")[:5]
    assert int(answered) + int(failed) == 24
    assert int(refused) > 0
    assert int(sent) == int(answered) + int(refused)
    assert f"asyncio.gather: {failed} of 24 calls have no answer ({failed} RateLimitError)" in captured.out
    assert "semaphore" not in captured.out
    assert "asyncio.gather: over after" in captured.out  # a minute and a half without a word looks like a hang


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["govern", "install"])
def test_a_client_and_a_process_are_governed(pattern: str, capsys: pytest.CaptureFixture[str]) -> None:
    # Without refusals, if the machine is not too busy.
    assert main(["demo", *SMALL, "--pattern", pattern]) in (0, 1)
    answered, failed, sent, refused = map(int, row(capsys.readouterr().out, f"Penstock {pattern}")[1:5])
    assert (answered, failed) == (24, 0)
    assert sent == answered + refused


@pytest.mark.slow
def test_the_usual_repair_runs_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", *SMALL, "--pattern", "semaphore"]) == 0
    assert row(capsys.readouterr().out, "semaphore(5)+tenacity")[:2] == ["24", "24"]


@pytest.mark.slow
def test_a_refusal_in_its_own_run_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    # Two requests at once are all that this provider takes; a limiter that is not told so sends ten.
    assert main(["demo", *SMALL, "--largest", "100", "--burst", "0.2", "--pattern", "penstock"]) == 1
    assert int(row(capsys.readouterr().out, "Penstock @limit")[4]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("enforcement", ["fixed_window", "rolling_window", "sub_window"])
def test_the_other_enforcements_run_when_they_are_told(enforcement: str, capsys: pytest.CaptureFixture[str]) -> None:
    shape = ["--enforcement", enforcement, "--per", "2", "--requests", "16", "--tokens", "4000", "--sub-window", "0.5"]
    # Without refusals, if the machine is not too busy: the tests of the core judge that, in virtual time.
    assert main(["demo", *SMALL, *shape, "--told", "--pattern", "penstock"]) in (0, 1)
    answered, failed, sent, refused = map(int, row(capsys.readouterr().out, "Penstock @limit")[1:5])
    assert answered + failed == 24
    assert sent == answered + refused


# What a limiter is told


def test_the_published_limits_are_amounts_and_nothing_more() -> None:
    assert server().published() == (Rate(600, 60), Rate(60_000, 60))


def test_a_bucket_is_told_with_a_margin_and_no_window() -> None:
    assert server().told() == (Rate(600, 60, burst=13, window=False), Rate(60_000, 60, burst=1_300, window=False))
    assert server(burst=0.1).told()[0] == Rate(600, 60, burst=1, window=False)
    assert server(burst=1_000).told()[0] == Rate(600, 60, burst=600, window=False)


def test_windows_are_told_as_windows() -> None:
    whole = Rate(600, 60, burst=600), Rate(60_000, 60, burst=60_000)
    assert server(enforcement="fixed_window").told() == whole
    assert server(enforcement="rolling_window").told() == whole
    slices = server(enforcement="sub_window").told()[0]
    assert slices == [Rate(10, 1, burst=10), Rate(600, 60, burst=600)]
    Limiter(requests=slices)


# What is asked for


def test_the_same_seed_makes_the_same_calls() -> None:
    arguments: dict[str, Any] = {"usual": 300, "largest": 8_000, "streamed": 0.3}
    assert calls(50, seed=1, **arguments) == calls(50, seed=1, **arguments)
    assert calls(50, seed=1, **arguments) != calls(50, seed=2, **arguments)


def test_sizes_are_heavy_tailed_and_bounded() -> None:
    work = calls(2_000, usual=300, largest=8_000, streamed=0.25, seed=0)
    sizes = sorted(call.tokens for call in work)
    assert max(sizes) == 8_000
    assert min(sizes) >= 1
    assert 270 <= sizes[1_000] <= 370
    assert sum(sizes[-200:]) > 0.3 * sum(sizes)  # a tenth of the calls takes a third of the tokens
    assert 400 <= sum(call.body["stream"] for call in work) <= 600
    assert all(call.answer_tokens <= call.body["max_tokens"] for call in work)


def test_the_optimum_is_the_last_admission_and_one_answer() -> None:
    work = calls(50, usual=1, largest=1, streamed=0, seed=0)
    assert optimum(server(), work) == pytest.approx((50 - 15) / 10 + 0.05)


# What is shown


def run(name: str, **changed: Any) -> Run:
    given: dict[str, Any] = {
        "name": name,
        "calls": 1_200,
        "answered": 1_200,
        "errors": {},
        "sent": 1_234,
        "refused": 0,
        "seconds": 123.4,
        "optimum": 120.0,
        "dimension": "tokens",
        "used": 0.99,
    }
    return Run(**given | changed)


def test_the_table_fits_a_terminal_and_shows_no_ratio_for_who_gave_up() -> None:
    runs = [run("gather", answered=300, errors={"RateLimitError": 855, "APITimeoutError": 45}, refused=3_000)]
    runs += [run("semaphore"), run("penstock")]
    console = Console(file=io.StringIO(), width=80)
    console.print(table(runs))
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in printed
    assert row(printed, "asyncio.gather") == [
        *("1,200", "300", "900", "1,234", "3,000", "123.4", "s", "-", "99%"),
    ]
    assert row(printed, "Penstock @limit")[-3:] == ["s", "1.03", "99%"]
    assert remarks(runs) == [
        "asyncio.gather: 900 of 1,200 calls have no answer (45 APITimeoutError, 855 RateLimitError)"
    ]
    assert [each.clean for each in runs] == [False, True, True]


def test_a_line_per_run_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    summary = ArrivalLog().summary({})
    with Scoreboard(console, list(PATTERNS), 300) as board:
        board.show("gather", 1.25, summary)
    lines = Text.from_ansi(console.file.getvalue().split("\x1b[2K")[-1]).plain.splitlines()  # type: ignore[attr-defined]
    assert [line.split()[0] for line in lines if line.strip()] == [
        "asyncio.gather",
        "semaphore(5)+tenacity",
        *["Penstock"] * 3,
    ]
    assert lines[0].endswith("0 of 300     0 refused   1.2 s")
    assert all(len(line.rstrip()) <= 80 for line in lines)


def test_a_narrow_terminal_gets_lines_that_fit() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=48)
    with Scoreboard(console, list(PATTERNS), 1_200) as board:
        board.show("gather", 1.25, ArrivalLog().summary({}))
    console.print(closing([run("gather", answered=300, errors={"RateLimitError": 900}), run("penstock")], console))
    printed = Text.from_ansi(console.file.getvalue().split("\x1b[2K")[-1]).plain.splitlines()  # type: ignore[attr-defined]
    assert max(map(len, printed)) <= 48
    assert len([line for line in printed if line.startswith("asyncio.gather")]) == 2  # of them one is the live line
    assert "  123.4 s, 99% of quota" in printed  # no ratio for who gave up
    assert "  123.4 s, 1.03 of the optimum, 99% of quota" in printed


def test_a_terminal_that_knows_only_ascii_is_drawn_in_ascii() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=file, force_terminal=True, width=80)
    with Scoreboard(console, list(PATTERNS), 10) as board:
        board.show("gather", 1.25, ArrivalLog().summary({}))
    console.print(closing([run("penstock")], console))
    file.flush()
    assert "-" * 20 in file.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
