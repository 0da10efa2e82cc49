"""Servers whose worker processes share one limiter: what becomes of its slots when one of them is killed."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from penstock.testing.provider import FakeProvider

EXAMPLES = Path(__file__).parents[4] / "examples" / "workers"
sys.path.insert(0, str(EXAMPLES))


def test_a_worker_that_is_killed_gives_its_slots_back() -> None:
    from gunicorn_preload import get

    port, quota = 28_000 + os.getpid() % 4_000, f"test-gunicorn-{os.getpid()}"
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers=2", "--threads=16", f"--bind=127.0.0.1:{port}"]
    with FakeProvider(requests=6_000, latency=1.5, latency_jitter=0) as provider:
        environment = os.environ | {"PROVIDER": provider.base_url, "QUOTA": quota}
        command += ["--log-level=critical", "gunicorn_preload:app"]
        server = subprocess.Popen(command, cwd=EXAMPLES, env=environment)
        try:
            url = f"http://127.0.0.1:{port}/"
            used = {int(get(url).split()[0])}
            with ThreadPoolExecutor(12) as pool:

                def ask(_: int) -> str:
                    try:
                        with urllib.request.urlopen(url, timeout=50) as response:
                            return str(response.read().decode())
                    except OSError:
                        return ""

                asked = [pool.submit(ask, number) for number in range(12)]
                while provider.summary().sent < 7:  # all six slots are taken
                    pass
                os.kill(used.pop(), signal.SIGKILL)
                answered = [one.result() for one in asked]
            with ThreadPoolExecutor(6) as pool:
                assert all(pool.map(lambda _: get(url), range(6)))
            assert any(answered)
        finally:
            server.terminate()
            server.wait(30)
            shared = Path(f"/dev/shm/penstock-{os.geteuid()}-{quota}")
            shared.unlink(missing_ok=True)
