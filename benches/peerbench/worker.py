"""Runs one measurement in a process of its own: `python -m peerbench.worker '{"task": ..., ...}'`.

The result is the last line of the output, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from peerbench import latency, threads, waiting

if TYPE_CHECKING:
    from collections.abc import Callable

TASKS: dict[str, Callable[..., dict[str, object]]] = {
    "latency": latency.admissions,
    "paced": waiting.paced,
    "parked": waiting.parked,
    "retry": latency.retries,
    "threads": threads.run,
}


def main() -> None:
    arguments = json.loads(sys.argv[1])
    result = TASKS[arguments.pop("task")](**arguments)
    print(json.dumps(result), flush=True)
    # Thousands of parked tasks and threads asleep for an hour have nothing left to do.
    os._exit(0)


if __name__ == "__main__":
    main()
