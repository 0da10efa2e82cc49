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

#: Columns of a line's bar, of its name, and of what stands behind the bar; all of a line fits in 80.
_BAR, _NAME, _REST = 20, 23, 36
#: Columns that the closing table needs; in fewer, each run has lines of its own.
_TABLE = 78


class Scoreboard:
    """A line per run: drawn over while it goes on, or, where the console is no terminal, printed when it is over."""

    def __init__(self, console: Console, names: Sequence[str], calls: int) -> None:
        self._console = console
        self._calls = calls
        self._bar = max(0, min(_BAR, console.width - _NAME - _REST))
        self._full, self._empty = "━─" if _is_unicode(console) else "#-"
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
        filled = self._bar * done // max(1, self._calls)
        line = Text(f"{PATTERNS[name][0]:{_NAME}}", style="bold")
        line.append(self._full * filled, style="cyan")
        line.append(self._empty * (self._bar - filled), style="bright_black")
        line.append(f" {done:>4} of {self._calls}  ", style="not bold")
        line.append(f"{summary.refused:>4} refused", style="red" if summary.refused else "green")
        line.append(f" {seconds:5.1f} s", style="not bold")
        self._lines[name] = line
        self._draw()

    def over(self, run: Run) -> None:
        """Say that a run is over, where nobody saw it go on."""
        if self._live is None:
            self._console.print(f"{PATTERNS[run.name][0]}: over after {run.seconds:.1f} s")

    def _draw(self) -> None:
        if self._live is not None:
            lines = Text("\n", no_wrap=True, overflow="crop").join(self._lines.values())
            self._live.update(lines, refresh=True)


def _is_unicode(console: Console) -> bool:
    return console.encoding.lower().startswith("utf")


def closing(runs: Sequence[Run], console: Console) -> Table | str:
    """Make what closes the demo: the table, or where that does not fit, three lines per run."""
    if console.width >= _TABLE:
        return table(runs)
    return "\n".join(
        f"{PATTERNS[run.name][0]}\n"
        f"  {run.answered:,} of {run.calls:,} answered, {run.sent:,} sent, {run.refused:,} refused\n"
        f"  {run.seconds:.1f} s{'' if run.failed else f', {run.ratio:.2f} of the optimum'}, {run.used:.0%} of quota"
        for run in runs
    )


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
