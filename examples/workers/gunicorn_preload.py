"""A gunicorn app with preload: the limiter is made once, before the fork, and four workers share one quota.

`python gunicorn_preload.py` runs a provider on this machine, the server, and sixty requests at once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _call import complete

from penstock import Limiter, per_second

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# --8<-- what an app has
#: One quota of 20 calls a second, of which 6 may be under way, for all workers together.
QUOTA = os.environ.get("QUOTA", "gunicorn-example")
gate = Limiter(requests=per_second(20), concurrency=6, network_jitter=0.3, store=f"shm://{QUOTA}")


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with what the provider said, and with who asked it."""
    with gate.permit():
        answer = complete(os.environ["PROVIDER"], environ["PATH_INFO"])
    start_response("200 OK", [("content-type", "text/plain")])
    return [f"{os.getpid()} {answer}".encode()]


# --8<-- what shows it


def get(url: str) -> str:
    """Get a page, as soon as the server is there."""
    until = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                return str(response.read().decode())
        except OSError:  # noqa: PERF203  it is not there yet
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def main() -> None:
    """Run the provider, the server and sixty requests."""
    from penstock.testing.provider import FakeProvider

    workers, port = 4, 18_000 + os.getpid() % 1_000
    quota = f"gunicorn-example-{os.getpid()}"
    with (
        FakeProvider(requests=20, per=1, enforcement="rolling_window", latency=0.1) as provider,
        tempfile.TemporaryDirectory() as home,
    ):
        command = [sys.executable, "-m", "gunicorn", "--preload", f"--workers={workers}", "--threads=16"]
        command += [
            f"--bind=127.0.0.1:{port}",
            f"--worker-tmp-dir={home}",
            "--log-level=warning",
            f"{Path(__file__).stem}:app",
        ]
        environment = os.environ | {"PROVIDER": provider.base_url, "QUOTA": quota}
        server = subprocess.Popen(command, env=environment, cwd=Path(__file__).resolve().parent)
        try:
            get(f"http://127.0.0.1:{port}/ready")
            with ThreadPoolExecutor(60) as pool:
                pages = list(pool.map(lambda number: get(f"http://127.0.0.1:{port}/{number}"), range(60)))
        finally:
            server.terminate()
            server.wait(30)
            Path(f"/dev/shm/penstock-{os.geteuid()}-{quota}").unlink(missing_ok=True)  # nobody uses that name again
        used = {page.split()[0] for page in pages}
        print(f"{len(pages)} answers from {len(used)} workers")
        print(f"The provider saw: {provider.summary()}")
        if provider.summary().refused:
            raise SystemExit("the workers together used more than the quota")


if __name__ == "__main__":
    main()
