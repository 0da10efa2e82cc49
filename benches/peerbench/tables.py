"""What the report says of each scenario's results."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import TYPE_CHECKING

from peerbench.adapters import PEERS
from peerbench.peer import BARE, CASES
from peerbench.report import Table, number
from peerbench.run import BURST_SECONDS, PACING, THREAD_CALLS, THREADS, Plan, Result

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS = (
    "Late by its limits: after bucket and window allowed it, given what had left before. Overtaken: admitted after one "
    "who came later. Fullest period: the most that left in any one second, of the amount. Over the limit: admissions "
    "that came when the amount, and for a bucket its capacity on top, had left in the second before. Rate reached: the "
    "share of the configured rate that was used, after the burst."
)


NO_LIMIT = "released on schedule from outside, so it keeps no limit of its own"


def label(peer: str, variant: str) -> str:
    """Say what the first column says."""
    return f"{peer}, {variant}" if variant else peer


def grouped(results: Sequence[Result]) -> dict[tuple[str, str], list[Result]]:
    """Results by peer and variant, in the order of the report."""
    groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        groups[result["peer"], result["variant"]].append(result)
    order = list(PEERS)
    return dict(sorted(groups.items(), key=lambda item: order.index(item[0][0])))


def latency_tables(result: Result, plan: Plan) -> list[Table]:
    """Make a table per case."""
    calls = result["calls"]
    floor = min(min(call["ns"]) for call in calls if call["peer"] == "floor" and call["case"] == "await")
    tables = []
    for case, meaning in CASES.items():
        table = Table(
            f"Uncontended: {case}",
            f"{meaning[0].upper()}{meaning[1:]}: nanoseconds per call without the loop's own, best and median of "
            f"{plan.rounds} interleaved samples, and times an awaited empty coroutine ({floor:.0f} ns).",
            ("", "dimensions", "statement", "min ns", "median ns", "x floor"),
        )
        for name in plan.peers:
            mine = [call for call in calls if call["peer"] == name and call["case"] == case]
            for call in mine:
                ns = call["ns"]
                table.rows.append(
                    [
                        label(name, call["variant"]),
                        number(call["dimensions"]),
                        f"`{call['statement']}`",
                        number(min(ns)) if ns else table.mark("-", call["error"]),
                        number(statistics.median(ns)) if ns else "-",
                        number(min(ns) / floor, 1) if ns else "-",
                    ]
                )
            if not mine:
                reason = f"{name}: {PEERS[name].cannot.get(case, 'not offered')}"
                table.rows.append([name, "-", table.mark("-", reason), "-", "-", "-"])
        tables.append(table)
    return tables


def retry_tables(result: Result, plan: Plan) -> list[Table]:
    """Make a table for coroutines and one for functions."""
    tables = []
    for case in ("decorated coroutine", "decorated function"):
        calls = [call for call in result["calls"] if call["case"] == case]
        floor = min((min(call["ns"]) for call in calls if call["peer"] == "floor" and call["ns"]), default=None)
        bare = min((min(call["ns"]) for call in calls if call["variant"] == BARE and call["ns"]), default=None)
        table = Table(
            f"Retries: {case} that succeeds",
            f"{CASES[case][0].upper()}{CASES[case][1:]}, no attempt fails: nanoseconds per call without the loop's "
            f"own, best and median of {plan.rounds} interleaved samples. Ratios are of the best, to the undecorated "
            f"call (x floor) and to the gate that does not retry, `{BARE}` (x gate).",
            ("", "decorator", "min ns", "median ns", "x floor", "x gate"),
        )
        for call in calls:
            ns = call["ns"]
            best = min(ns, default=None)
            table.rows.append(
                [
                    call["peer"],
                    f"`{call['variant']}`" if call["variant"] else "none",
                    number(best) if ns else table.mark("-", f"{call['peer']}: {call['error']}"),
                    number(statistics.median(ns) if ns else None),
                    number(best / floor if best is not None and floor else None, 1),
                    number(best / bare if best is not None and bare else None, 2),
                ]
            )
        tables.append(table)
    return tables


def threads_table(results: list[Result], plan: Plan) -> Table:
    """Show speed and exactness."""
    table = Table(
        f"{THREADS} threads on one limiter",
        f"Admissions per second with room by one thread and by {THREADS}, best of {plan.repeats}. Then the sum that "
        f"{THREADS} threads get from a limiter with room for {THREAD_CALLS:,} before they are refused, against what it "
        "may give in that time (every repeat where they differ).",
        ("", "1 thread /s", f"{THREADS} threads /s", "admitted", "allowed", "exact"),
    )
    groups = grouped(results)
    for name in plan.peers:
        mine = groups.get((name, ""))
        if mine is None:
            reason = f"{name}: {PEERS[name].cannot.get('threads', 'not offered')}"
            table.rows.append([name, table.mark("-", reason), "-", "-", "-", "-"])
            continue
        good = [result for result in mine if "error" not in result]
        if not good:
            table.rows.append([name, table.mark("-", f"{name}: {mine[0]['error']}"), "-", "-", "-", "-"])
            continue
        sums = sorted({result["admitted"] for result in good})
        low = min(result["allowed"][0] for result in good)
        high = max(result["allowed"][1] for result in good)
        exact = all(result["allowed"][0] <= result["admitted"] <= result["allowed"][1] for result in good)
        table.rows.append(
            [
                name,
                number(max(result["one_per_s"] for result in good)),
                number(max(result["many_per_s"] for result in good)),
                " ".join(map(number, sums)),
                f"{number(low)} to {number(high)}",
                "yes" if exact else "no",
            ]
        )
    return table


def middle(values: Sequence[float | None]) -> float | None:
    """Take the median of what was measured."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def most(values: Sequence[float | None]) -> float | None:
    """Take the largest of what was measured."""
    return max((value for value in values if value is not None), default=None)


def remarks(results: list[Result], who: str) -> list[str]:
    """Say what has to be said about runs that did not end well."""
    said = [f"{who}: {result['error']}" for result in results if result.get("error")]
    stopped = [result for result in results if result.get("gave_up_after") is not None]
    if stopped:
        limit = stopped[0]["gave_up_after"]
        shares = ", ".join(f"{result['admitted']:,} of {result['count']:,}" for result in stopped)
        said.append(f"{who}: gave up after {limit:g} s with {shares} admitted")
    return list(dict.fromkeys(said))


def cpu_and_memory(size: str, result: Result, plan: Plan) -> Table:
    """Show what a waiter costs."""
    paced, parked = grouped(result["paced"]), grouped(result["parked"])
    table = Table(
        f"{int(size):,} tasks waiting: what a waiter costs",
        f"Processor time from the first task to the last admission, best and median of {plan.repeats} runs at "
        f"{result['amount']:,}/s (at a low rate each admission wakes the loop for itself). Memory of a process in "
        "which all of them wait, median. `above` is above the floor, a task and a bare future for each.",
        ("", "CPU us, min", "median", "x floor", "above", "bytes", "above"),
    )

    def cpu(group: list[Result]) -> list[float]:
        # A run that was stopped has not paid for all of its waiters.
        return [one["cpu_us"] for one in group if "cpu_us" in one and one["gave_up_after"] is None]

    floor_cpu = min(cpu(paced.get(("floor", ""), [])), default=None)
    floor_bytes = middle([one.get("bytes") for one in parked.get(("floor", ""), [])])
    for (name, variant), group in paced.items():
        who = label(name, variant)
        times = cpu(group)
        weight = middle([one.get("bytes") for one in parked.get((name, variant), [])])
        said = remarks(group, who) + remarks(parked.get((name, variant), []), who)
        best = min(times, default=None)
        first = number(best, 1)
        for remark in said:
            first = table.mark(first, remark)
        table.rows.append(
            [
                who,
                first,
                number(middle(times), 1),
                number(best / floor_cpu if best is not None and floor_cpu else None, 2),
                number(best - floor_cpu if best is not None and floor_cpu else None, 1),
                number(weight),
                number(weight - floor_bytes if weight is not None and floor_bytes is not None else None),
            ]
        )
    return table


def lateness_and_order(title: str, results: list[Result], intro: str) -> Table:
    """Show how well the waiters were let through."""
    table = Table(
        title,
        intro,
        (
            "",
            "late p50 ms",
            "p99",
            "max",
            "late by its limits, p99",
            "max",
            "overtaken",
            "fullest period",
            "over the limit",
            "rate reached",
        ),
    )
    for (name, variant), group in grouped(results).items():
        who = label(name, variant)
        good = [one for one in group if "late_ms" in one]
        late = [one["late_ms"] or {} for one in good]
        lags = [one["lag_ms"] or {} for one in good]
        first = number(middle([one.get("p50") for one in late]), 2)
        for remark in remarks(group, who):
            first = table.mark(first, remark)
        keeps = PEERS[name].keeps_a_limit
        fullest = most([one["fullest_window"] for one in good])
        reached = middle([one["rate_reached"] for one in good])
        table.rows.append(
            [
                who,
                first,
                number(middle([one.get("p99") for one in late]), 2),
                number(most([one.get("max") for one in late]), 1),
                number(middle([one.get("p99") for one in lags]), 2) if keeps else "-",
                number(most([one.get("max") for one in lags]), 1) if keeps else "-",
                number(most([one["overtaken"] for one in good])),
                "-" if fullest is None or not keeps else f"{fullest:.1%}",
                number(most([one["violations"] for one in good])) if keeps else table.mark("-", NO_LIMIT),
                "-" if reached is None else f"{reached:.3f}",
            ]
        )
    return table


def waiting_tables(results: Result, plan: Plan) -> list[Table]:
    """Make two tables per size."""
    tables = []
    for size, result in results.items():
        tables.append(cpu_and_memory(size, result, plan))
        tables.append(
            lateness_and_order(
                f"{int(size):,} tasks waiting: lateness, order, limit",
                result["paced"],
                f"{result['amount']:,} per second, a burst of {BURST_SECONDS:g} s of that, tasks enqueued as fast as "
                "the loop goes. Lateness counts from when each waiter's turn was due: median of "
                f"{plan.repeats} runs, max of all. {COLUMNS}",
            )
        )
    return tables


def pacing_table(results: list[Result], plan: Plan) -> Table:
    """Show the same columns for another rate."""
    return lateness_and_order(
        f"Pacing: {PACING['amount']} per second, burst {PACING['burst']}",
        results,
        f"{plan.paced} tasks wait for {PACING['amount']}/s, median of {plan.repeats} runs. {COLUMNS}",
    )
