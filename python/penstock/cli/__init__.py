"""The command line: ``penstock`` or ``python -m penstock``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from penstock.cli import demo

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What a shell says of a program that Ctrl-C ended: 128 and the number of SIGINT.
_INTERRUPTED = 130


def parser() -> argparse.ArgumentParser:
    """Build the command line: each command adds itself, and sets ``run`` to what runs it."""
    result = argparse.ArgumentParser(prog="penstock", description="A gate in front of LLM provider calls.")
    commands = result.add_subparsers(title="commands", metavar="COMMAND", required=True)
    demo.add_command(commands)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives the exit status. Options that cannot be end the program with status 2, as in argparse."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        sys.stderr.write("\npenstock: interrupted\n")
        return _INTERRUPTED
