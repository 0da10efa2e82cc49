"""``penstock demo``: many calls at once, as people make them and with Penstock, against a strict provider."""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib.util
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.cli.server import Server
    from penstock.cli.workload import Call
    from penstock.limiter import Limiter

#: What the demo imports and Penstock itself does not need: all of it comes with the extra.
_NEEDED = ("aiohttp", "openai", "rich", "tenacity")
_ENFORCEMENTS = ("token_bucket", "fixed_window", "rolling_window", "sub_window")
_PATTERNS = ("gather", "semaphore", "penstock", "govern", "install")

_DESCRIPTION = """\
Makes several hundred calls of heavy-tailed sizes with the openai SDK, over HTTP, to a strict provider on this machine:
first as tutorials do it (asyncio.gather), then with the usual repair (semaphore and retries), then with Penstock: with
each call decorated, and as tutorials do it behind penstock.govern(client) and penstock.install(). Each run has a fresh
provider with the same quota, and makes the same calls in the same order. No key and no network needed.
"""

_EPILOG = """\
enforcement:
  token_bucket    refilled continuously, full at first; holds --burst seconds of quota (OpenAI, Groq, Anthropic)
  fixed_window    reset every period (Azure's tokens)
  rolling_window  never more than the amount in any period (Mistral, Gemini)
  sub_window      requests in fixed windows of --sub-window seconds, tokens in fixed windows of the period (Azure)

the optimum is the time in which a client that knew everything could be done: each call is made, in order, the moment
that the provider has quota for it, and the last one is answered after the usual latency.

exit status: 0; 1 if one of Penstock's own runs had a refusal or a failed call; 2 for options that cannot be.

examples:
  penstock demo
  penstock demo --seed 7 --pattern penstock
  penstock demo --burst 60 --calls 1200 --told          a bucket that holds a whole minute, and is known to
  penstock demo --enforcement rolling_window --per 5 --requests 75 --tokens 45000

"""


def _number(low: float, high: float = math.inf, *, whole: bool = False) -> Callable[[str], float]:
    """Make a reader of numbers from ``low`` to ``high``."""
    kind = "a whole number" if whole else "a number"
    allowed = f"{kind} from {low:g} to {high:g}" if math.isfinite(high) else f"{kind} of at least {low:g}"

    def read(text: str) -> float:
        plain = text.replace("_", "").replace(",", "")
        try:
            value = int(plain) if whole else float(plain)
        except ValueError:
            value = math.nan
        if not low <= value <= high or math.isinf(value):
            raise argparse.ArgumentTypeError(f"must be {allowed}, not {text!r}")
        return value

    return read


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``demo`` to the command line."""
    command = commands.add_parser(
        "demo",
        help="many calls at once, with and without Penstock, against a strict provider on this machine",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=lambda options: run(command, options))
    add = command.add_argument
    add(
        "--pattern",
        action="append",
        choices=_PATTERNS,
        help="run only this one; may be repeated (default: all)",
    )
    add("--told", action="store_true", help="tell Penstock how the quota is enforced, not just how large it is")
    add(
        "--concurrency",
        type=_number(1, whole=True),
        default=32,
        metavar="N",
        help="how many calls Penstock has under way at once, at most (default: %(default)s)",
    )
    add("--seed", type=int, default=0, help="of sizes, order and latencies (default: %(default)s)")
    load = command.add_argument_group("calls")
    add = load.add_argument
    add("--calls", type=_number(1, 100_000, whole=True), default=240, metavar="N", help="default: %(default)s")
    add(
        "--usual",
        type=_number(1, whole=True),
        default=300,
        metavar="TOKENS",
        help="median size of a call; the largest are 20 times that (default: %(default)s)",
    )
    add(
        "--largest",
        type=_number(1, whole=True),
        default=8_000,
        metavar="TOKENS",
        help="what no call is above (default: %(default)s)",
    )
    add("--streamed", type=_number(0, 1), default=0.3, metavar="SHARE", help="0 to 1 (default: %(default)g)")
    provider = command.add_argument_group("the provider")
    add = provider.add_argument
    amount = _number(1, whole=True)
    add("--requests", type=amount, default=900, metavar="N", help="requests per period (default: %(default)s)")
    add("--tokens", type=amount, default=540_000, metavar="N", help="tokens per period (default: %(default)s)")
    add("--per", type=_number(0.001), default=60.0, metavar="S", help="the period in seconds (default: %(default)g)")
    add("--enforcement", choices=_ENFORCEMENTS, default="token_bucket", help="default: %(default)s; see below")
    add(
        "--burst",
        type=_number(0.001),
        default=1.5,
        metavar="S",
        help="how many seconds of quota a token bucket holds (default: %(default)g)",
    )
    add("--sub-window", type=_number(0.001), default=1.0, metavar="S", help="its length (default: %(default)g)")
    add("--latency", type=_number(0), default=0.6, metavar="S", help="median seconds per answer (default: %(default)g)")
    add(
        "--network-jitter",
        type=_number(0),
        default=0.0,
        metavar="S",
        help="requests are counted up to so much later (default: %(default)g)",
    )


def run(command: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Run the demo; gives the exit status. Options that cannot be end the program."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        command.exit(2, f"{command.prog}: needs {', '.join(missing)}: pip install 'penstock[demo]'\n")

    from penstock.cli.run import optimum
    from penstock.cli.server import Server
    from penstock.cli.workload import calls

    server = Server(
        requests=options.requests,
        tokens=options.tokens,
        per=options.per,
        enforcement=options.enforcement,
        burst=options.burst,
        sub_window=options.sub_window,
        latency=options.latency,
        network_jitter=options.network_jitter,
        seed=options.seed,
    )
    work = calls(
        options.calls, usual=options.usual, largest=options.largest, streamed=options.streamed, seed=options.seed
    )
    try:
        best = optimum(server, work)
        gates = functools.partial(_limiter, server, told=options.told, concurrency=options.concurrency)
        gates(name="demo")
    except (TypeError, ValueError) as error:
        command.error(f"{error}; see --tokens, --burst and --largest")
    names = [name for name in _PATTERNS if not options.pattern or name in options.pattern]
    return asyncio.run(_show(names, server, work, gates, best))


def _limiter(server: Server, *, told: bool, concurrency: int, name: str) -> Limiter:
    from penstock.limiter import Limiter

    requests, tokens = server.told() if told else server.published()
    jitter = server.jitter if told else None
    return Limiter(requests=requests, tokens=tokens, concurrency=concurrency, network_jitter=jitter, name=name)


async def _show(names: list[str], server: Server, work: list[Call], gates: Callable[..., Limiter], best: float) -> int:
    """Make the runs and print what came of them."""
    from rich.console import Console

    from penstock.cli.patterns import OURS
    from penstock.cli.run import run as one_run
    from penstock.cli.run import warm_up
    from penstock.cli.scoreboard import Scoreboard, closing, remarks

    console = Console(highlight=False)
    sizes = [call.tokens for call in work]
    streamed = sum(call.body["stream"] for call in work)
    console.print(f"{len(work):,} calls with the openai SDK, {streamed:,} of them streamed.")
    console.print(f"They take {sum(sizes):,} tokens, the largest {max(sizes):,}.")
    console.print(f"Quota: {server}.")
    console.print(f"Answers take {server.latency:g} s. The optimum is {best:.1f} s.\n")
    await warm_up(work[0])
    runs = []
    with Scoreboard(console, names, len(work)) as board:
        for name in names:
            gate = gates(name=f"demo-{name}")
            runs.append(await one_run(name, server, work, gate, functools.partial(board.show, name)))
            board.over(runs[-1])
    console.print()
    console.print(closing(runs, console))
    for remark in remarks(runs):
        console.print(remark)
    return 0 if all(run.clean for run in runs if run.name in OURS) else 1
