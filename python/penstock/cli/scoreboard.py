"""What the demo shows: a live line per run on a terminal, and the closing table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.live import Live
from rich.table import Table
from rich.text import Text

from penstock.cli.patterns import OURS, PATTERNS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from rich.console import Console
    from typing_extensions import Self

    from penstock.cli.run import Run
    from penstock.testing.provider import Summary

#: Columns; all of a line fits in 80.
_BAR, _NAME = 20, 23


class Scoreboard:
    """A line per run, drawn over while it goes on. Nothing at all where the console is no terminal."""

    def __init__(self, console: Console, names: Sequence[str], calls: int) -> None:
        self._calls = calls
        self._lines = {name: Text(f"{PATTERNS[name][0]:{_NAME}}waits for its turn", style="dim") for name in names}
        # Drawn when there is news, not by a thread: this process is busy enough with both sides of the calls.
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
            self._draw()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, name: str, seconds: float, summary: Summary) -> None:
        """Draw how far a run is."""
        if self._live is None:
            return
        done = summary.admitted - summary.in_flight
        filled = _BAR * done // max(1, self._calls)
        line = Text(f"{PATTERNS[name][0]:{_NAME}}", style="bold")
        line.append("━" * filled, style="cyan")
        line.append("─" * (_BAR - filled), style="bright_black")
        line.append(f" {done:>4} of {self._calls}  ", style="not bold")
        line.append(f"{summary.refused:>4} refused", style="red" if summary.refused else "green")
        line.append(f" {seconds:5.1f} s", style="not bold")
        self._lines[name] = line
        self._draw()

    def _draw(self) -> None:
        if self._live is not None:
            self._live.update(Text("\n").join(self._lines.values()), refresh=True)


def table(runs: Sequence[Run]) -> Table:
    """Make the closing table; it fits in 80 columns."""
    result = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    result.add_column("\npattern", no_wrap=True)
    for heading in (
        "\ncalls",
        "\nanswered",
        "calls\nfailed",
        "requests\nsent",
        "\n429s",
        "\ntime",
        "time by\noptimum",
        "quota\nused",
    ):
        result.add_column(heading, justify="right", no_wrap=True)
    for run in runs:
        result.add_row(
            PATTERNS[run.name][0],
            f"{run.calls:,}",
            f"{run.answered:,}",
            _count(run.failed),
            f"{run.sent:,}",
            _count(run.refused),
            f"{run.seconds:.1f} s",
            "-" if run.failed else f"{run.ratio:.2f}",  # who gives up is soon done
            f"{run.used:.0%}",
            style="bold" if run.name in OURS else "",
        )
    return result


def _count(wrong: int) -> Text:
    return Text(f"{wrong:,}", style="red" if wrong else "green")


def remarks(runs: Sequence[Run]) -> list[str]:
    """Say what the figures do not: why calls have no answer."""
    return [
        f"{PATTERNS[run.name][0]}: {run.failed:,} of {run.calls:,} calls have no answer ("
        + ", ".join(f"{count:,} {name}" for name, count in sorted(run.errors.items()))
        + ")"
        for run in runs
        if run.failed
    ]
