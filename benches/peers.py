#!/usr/bin/env python
"""Penstock beside other Python rate limiters and retriers, in one run: `python benches/peers.py --help`.

The peers live in an environment of their own, with Penstock's wheel beside them:

    python3.11 -m venv .venv-bench
    .venv-bench/bin/pip install -r benches/requirements-peers.txt target/wheels/penstock-*.whl
    .venv-bench/bin/python benches/peers.py --markdown docs/benchmarks.md --json benchmarks.json

Every measurement is repeated, the limiters in turn, so that a slow moment of the machine falls on all of them. Compare
within a run: absolute times on a shared machine mean little.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from peerbench.adapters import PEERS, RETRYING
from peerbench.run import SCENARIOS, SPREADS, Plan, Result, latency, pacing, retry, say, threads, waiting
from peerbench.tables import latency_tables, pacing_table, retry_tables, threads_table, waiting_tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peerbench.report import Table

EVERYONE = PEERS | RETRYING


def about() -> dict[str, str]:
    """Tell where and when this was measured."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        processor = models[0] if models else processor
    return {
        "date": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.platform(),
        "processor": f"{processor}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start",
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", choices=SCENARIOS, action="append", help="only this one; may be repeated")
    parser.add_argument(
        "--peer", choices=list(EVERYONE), action="append", help="only this one, and the floor; may be repeated"
    )
    parser.add_argument("--size", type=int, choices=list(SPREADS), action="append", help="only this many waiting tasks")
    parser.add_argument(
        "--million", action="store_true", help="also 1,000,000 waiting tasks (3 GB, some minutes per peer)"
    )
    parser.add_argument("--repeats", type=int, help="runs of each measurement (default 3, with --quick 1)")
    parser.add_argument(
        "--quick", action="store_true", help="up to 10,000 tasks, short runs: a look, not a figure to quote"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables as Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample")
    return parser.parse_args(arguments)


def plan_of(options: argparse.Namespace, skipped: dict[str, str]) -> Plan:
    """Make a plan of what the options ask for and what is installed."""
    asked = [name for name in EVERYONE if not options.peer or name in options.peer or name == "floor"]
    present = [name for name in asked if name not in skipped]
    sizes = options.size or [size for size in SPREADS if size <= (10_000 if options.quick else 100_000)]
    if options.million and 1_000_000 not in sizes:
        sizes.append(1_000_000)
    return Plan(
        peers=[name for name in present if name in PEERS],
        retrying=[name for name in RETRYING if name in present],
        scenarios=[name for name in SCENARIOS if not options.scenario or name in options.scenario],
        sizes=sorted(sizes),
        repeats=options.repeats or (1 if options.quick else 3),
        rounds=7 if options.quick else 31,
        sample=0.003 if options.quick else 0.01,
        faster=2 if options.quick else 1,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, then tell."""
    options = parse(arguments)
    skipped = {name: reason for name, peer in EVERYONE.items() if (reason := peer.missing()) is not None}
    plan = plan_of(options, skipped)
    for name, reason in skipped.items():
        say(f"skipped: {name}: {reason}")

    results: Result = {"about": about(), "plan": asdict(plan), "skipped": skipped}
    results["versions"] = {name: version for name in plan.measured if (version := EVERYONE[name].version())}
    tables: list[Table] = []
    if "latency" in plan.scenarios:
        results["latency"] = latency(plan)
        tables += latency_tables(results["latency"], plan)
    if "threads" in plan.scenarios:
        results["threads"] = threads(plan)
        tables.append(threads_table(results["threads"], plan))
    if "waiting" in plan.scenarios:
        results["waiting"] = waiting(plan)
        tables += waiting_tables(results["waiting"], plan)
    if "pacing" in plan.scenarios:
        results["pacing"] = pacing(plan)
        tables.append(pacing_table(results["pacing"], plan))
    if "retry" in plan.scenarios:
        results["retry"] = retry(plan)
        tables += retry_tables(results["retry"], plan)

    facts = [f"{key}: {value}" for key, value in results["about"].items()]
    facts.append("versions: " + ", ".join(f"{name} {version}" for name, version in results["versions"].items()))
    facts += [f"skipped: {name}: {reason}" for name, reason in skipped.items()]
    uses = [f"{name}: {EVERYONE[name].use}" for name in plan.measured]
    print("\n".join(facts), *(table.text() for table in tables), "How each is used\n" + "\n".join(uses), sep="\n\n")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.markdown:
        parts = [
            "# Benchmarks: Penstock and its peers",
            "Written by `benches/peers.py`; the file says how to run it. Compare within this run only.",
            "\n".join(f"- {fact}" for fact in facts),
            *(table.markdown() for table in tables),
            "## How each is used",
            "\n".join(f"- {use}" for use in uses),
        ]
        options.markdown.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
