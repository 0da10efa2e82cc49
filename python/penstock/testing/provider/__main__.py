"""Run the fake provider from a shell: ``python -m penstock.testing.provider``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import signal
import sys
from typing import IO, TYPE_CHECKING, get_args

from .dialect import DialectName
from .fault import parse
from .policy import Enforcement
from .server import FakeProvider

if TYPE_CHECKING:
    from collections.abc import Sequence

DESCRIPTION = """\
A strict LLM provider on loopback. It speaks the HTTP of OpenAI, Azure OpenAI, Anthropic, Gemini, Bedrock and Cohere,
each under its own paths, enforces a quota per model, and refuses what is over as the provider would.
"""

EPILOG = """\
what a request costs:
  max(max_tokens, characters of the prompt / 4) tokens, counted when it arrives. Embeddings: characters / 4, or the
  tokens given. The answer has max_tokens tokens (16 if there is no limit) unless --answer-tokens or the request header
  x-fake-answer-tokens says otherwise.

dialects:
  The address that is printed is for clients of --dialect; those of others take it without the path.

enforcement:
  token_bucket    refilled continuously, full at first (OpenAI, Groq, Anthropic)
  fixed_window    reset every period (Azure's tokens)
  rolling_window  never more than the amount in any period (Mistral, Gemini)
  sub_window      requests in fixed windows of --sub-window seconds, tokens in fixed windows of the period (Azure)

examples:
  python -m penstock.testing.provider --requests 500 --tokens 200000 --port 8000
  python -m penstock.testing.provider --requests 3 --tokens none --latency 1 --log arrivals.jsonl
  python -m penstock.testing.provider --dialect anthropic --tokens none --input-tokens 30000 --output-tokens 8000
  python -m penstock.testing.provider --fault 'overloaded; between=10-40' --fault 'drop; every=50'
  OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=any python your_program.py

faults:
  throttled, overloaded, error, insufficient_quota, oversize, daily, status; drop, half, short, overloaded_event,
  malformed, slow, gzip, deflate. For some requests only: arrivals=1 2, every=N, times=N, between=FROM-UNTIL (seconds),
  model=PATTERN; and retry_after=S, seconds=S, status=N, body=TEXT, after=EVENTS. One request asks for its own with the
  header x-fake-fault.

Ctrl-C ends it and prints the summary.
"""

STATUS_SECONDS = 0.5


def amount(text: str) -> int | None:
    """Read an amount: a whole number, or ``none``."""
    return None if text.lower() == "none" else int(text.replace("_", "").replace(",", ""))


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    result = argparse.ArgumentParser(
        prog="python -m penstock.testing.provider",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add("--dialect", choices=get_args(DialectName), default="openai", help="default: %(default)s")
    add("--fault", action="append", default=[], metavar="KIND", help="what goes wrong; may be repeated; see below")
    add("--port", type=int, default=8000, help="port on 127.0.0.1; 0 for any free one (default: %(default)s)")
    quota = result.add_argument_group("quota, per model")
    add = quota.add_argument
    add("--requests", type=amount, default=500, metavar="N", help="requests per period, or none (default: %(default)s)")
    add("--tokens", type=amount, default=200_000, metavar="N", help="tokens per period, or none (default: %(default)s)")
    add("--input-tokens", type=amount, metavar="N", help="prompt tokens per period (default: none)")
    add("--output-tokens", type=amount, metavar="N", help="answer tokens per period (default: none)")
    add("--requests-per-day", type=amount, metavar="N", help="a quota of a day besides (default: none)")
    add("--tokens-per-day", type=amount, metavar="N", help="a quota of a day besides (default: none)")
    add("--per", type=float, default=60.0, metavar="S", help="the period in seconds (default: %(default)g)")
    add("--enforcement", choices=get_args(Enforcement), help="default: that of the dialect's provider; see below")
    add("--burst-requests", type=int, metavar="N", help="capacity of the request bucket (default: the full amount)")
    add("--burst-tokens", type=int, metavar="N", help="capacity of the token bucket (default: the full amount)")
    add("--sub-window", type=float, metavar="S", help="seconds of a sub-window (default: a sixth of the period)")
    add("--phase", type=float, default=0.0, metavar="S", help="seconds of the first window that are over at the start")
    add("--failures-are-free", action="store_true", help="requests that fail do not use the request quota")
    answers = result.add_argument_group("answers")
    add = answers.add_argument
    add("--latency", type=float, default=0.05, metavar="S", help="median seconds per answer (default: %(default)g)")
    add(
        "--latency-jitter", type=float, default=0.2, metavar="SIGMA", help="its log-normal sigma (default: %(default)g)"
    )
    add(
        "--network-jitter", type=float, default=0.0, metavar="S", help="count requests up to so much later (default: 0)"
    )
    add("--answer-tokens", type=int, metavar="N", help="tokens in an answer (default: the request's max_tokens)")
    add("--stream-chunks", type=int, default=16, metavar="N", help="most pieces of a stream (default: %(default)s)")
    add("--key", action="append", metavar="KEY", help="accept only this API key; may be repeated (default: any)")
    add("--model", action="append", metavar="NAME", help="have only this model; may be repeated (default: any)")
    add("--seed", type=int, default=0, help="of the latencies (default: %(default)s)")
    result.add_argument("--log", metavar="FILE", help="append each arrival to FILE as a line of JSON, once finished")
    return result


def provider(options: argparse.Namespace) -> FakeProvider:
    """Make the provider that the options describe."""
    bursts = {"requests": options.burst_requests, "tokens": options.burst_tokens}
    daily = {"requests": options.requests_per_day, "tokens": options.tokens_per_day}
    return FakeProvider(
        dialect=options.dialect,
        requests=options.requests,
        tokens=options.tokens,
        input_tokens=options.input_tokens,
        output_tokens=options.output_tokens,
        daily={name: most for name, most in daily.items() if most is not None} or None,
        faults=[fault for text in options.fault for fault in parse(text)],
        per=options.per,
        enforcement=options.enforcement,
        burst={name: burst for name, burst in bursts.items() if burst is not None} or None,
        sub_window=options.sub_window,
        phase=options.phase,
        failed_count=not options.failures_are_free,
        latency=options.latency,
        latency_jitter=options.latency_jitter,
        network_jitter=options.network_jitter,
        stream_chunks=options.stream_chunks,
        answer_tokens=options.answer_tokens,
        keys=options.key,
        models=options.model,
        seed=options.seed,
        port=options.port,
    )


def drain(running: FakeProvider, file: IO[str] | None) -> None:
    """Write the finished arrivals to the file, if there is one, and drop them, so that memory stays bounded."""
    log = running.log
    finished = [arrival for arrival in log if arrival.finished is not None]
    log[:] = [arrival for arrival in log if arrival.finished is None]
    if file is not None:
        file.writelines(json.dumps(dataclasses.asdict(arrival)) + "\n" for arrival in finished)
        file.flush()


async def serve(running: FakeProvider, file: IO[str] | None) -> None:
    """Run until interrupted, with the totals on one line of a terminal."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows, where Ctrl-C cancels this task instead
            loop.add_signal_handler(name, stop.set)
    live = sys.stdout.isatty()
    try:
        async with running:
            sys.stdout.write(f"listening on {running.base_url}; Ctrl-C to stop\n")
            sys.stdout.flush()
            while not stop.is_set():
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(stop.wait(), STATUS_SECONDS)
                drain(running, file)
                if live:
                    sys.stdout.write(f"\r\x1b[K{running.summary()}")
                    sys.stdout.flush()
    finally:
        drain(running, file)
        sys.stdout.write(("\r\x1b[K" if live else "") + f"{running.summary()}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit status."""
    command = parser()
    options = command.parse_args(arguments)
    try:
        running = provider(options)
        file = open(options.log, "a", encoding="utf-8") if options.log else None  # noqa: SIM115 - closed below
    except (TypeError, ValueError, OSError) as error:
        command.error(str(error))
    with file or contextlib.nullcontext():
        try:
            asyncio.run(serve(running, file))
        except OSError as error:
            command.error(f"cannot listen on port {options.port}: {error}")
        except KeyboardInterrupt:
            pass
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
