"""Tables, for the terminal and for Markdown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class Table:
    """A titled table whose dashes are explained below it."""

    title: str
    intro: str
    header: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def mark(self, text: str, reason: str) -> str:
        """Make a cell with a footnote."""
        if reason not in self.notes:
            self.notes.append(reason)
        return f"{text} [{self.notes.index(reason) + 1}]"

    def text(self) -> str:
        """For a terminal: columns aligned, numbers to the right."""
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        lines = [self.title, "=" * len(self.title), self.intro, ""]
        for row in (list(self.header), ["-" * width for width in widths], *self.rows):
            cells = [row[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join(cells).rstrip())
        lines += [f"[{number}] {note}" for number, note in enumerate(self.notes, 1)]
        return "\n".join(lines)

    def markdown(self) -> str:
        """For docs/benchmarks.md."""
        lines = [f"## {self.title}", "", self.intro, ""]
        lines.append("| " + " | ".join(self.header) + " |")
        lines.append("|---" + "|---:" * (len(self.header) - 1) + "|")
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        if self.notes:
            lines.append("")
            lines += [f"- [{number}] {note}" for number, note in enumerate(self.notes, 1)]
        return "\n".join(lines)


def number(value: float | None, digits: int = 0) -> str:
    """Write a number with thousands set apart, or a dash."""
    return "-" if value is None else f"{value:,.{digits}f}"
