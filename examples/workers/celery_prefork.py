"""Celery with prefork: four worker processes, each of which is replaced after a few tasks, share one quota.

`python celery_prefork.py` runs a provider on this machine, a broker (redis-server where there is one, else Celery's
file system transport), the workers, and forty tasks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _call import complete
from celery import Celery

from penstock import Limiter, per_second


def in_folder(folder: str) -> dict[str, str]:
    """What Celery's file system transport is told, so that all it writes is in one folder."""
    return dict.fromkeys(("data_folder_in", "data_folder_out", "control_folder"), folder)


# --8<-- what an app has
#: One quota of 20 calls a second, of which 3 may be under way, for all processes together.
QUOTA = os.environ.get("QUOTA", "celery-example")
gate = Limiter(requests=per_second(20), concurrency=3, network_jitter=0.3, store=f"shm://{QUOTA}")

app = Celery("celery_prefork", broker=os.environ.get("BROKER", "memory://"))
app.conf.update(worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)
if "FOLDER" in os.environ:
    app.conf.broker_transport_options = in_folder(os.environ["FOLDER"])


@app.task
def summarize(text: str) -> None:
    """Ask the provider, and note who did."""
    with gate.permit():
        complete(os.environ["PROVIDER"], text)
    Path(os.environ["ANSWERS"], f"{text}-{os.getpid()}").touch()


# --8<-- what shows it


def main() -> None:
    """Run the provider, a broker, the workers and forty tasks."""
    from penstock.testing.provider import FakeProvider

    quota, running = f"celery-example-{os.getpid()}", []
    with (
        FakeProvider(requests=20, per=1, enforcement="rolling_window") as provider,
        tempfile.TemporaryDirectory() as home,
    ):
        answers, environment = Path(home, "answers"), {}
        answers.mkdir()
        redis = shutil.which("redis-server")
        if redis:
            port = 19_000 + os.getpid() % 1_000
            command = [redis, f"--port {port}", "--bind 127.0.0.1", "--save ''", "--appendonly no", f"--dir {home}"]
            running.append(subprocess.Popen(" ".join(command).split(), stdout=subprocess.DEVNULL))
            environment["BROKER"] = f"redis://127.0.0.1:{port}/0"
        else:
            Path(home, "queue").mkdir()
            environment |= {"BROKER": "filesystem://", "FOLDER": str(Path(home, "queue"))}
        environment |= {"PROVIDER": provider.base_url, "QUOTA": quota, "ANSWERS": str(answers)}
        os.environ.update(environment)
        command = [
            sys.executable,
            "-m",
            "celery",
            "--quiet",
            "-A",
            "celery_prefork",
            "worker",
            "--pool=prefork",
            "--concurrency=4",
        ]
        command += ["--max-tasks-per-child=5", "--loglevel=ERROR", "--without-gossip", "--without-mingle"]
        here = Path(__file__).resolve().parent
        running.append(subprocess.Popen(command, cwd=here, env=os.environ | {"C_FORCE_ROOT": "1"}))
        app.conf.broker_url = environment["BROKER"]
        if not redis:
            app.conf.broker_transport_options = in_folder(environment["FOLDER"])
        try:
            for number in range(40):
                summarize.delay(f"text-{number}")
            until = time.monotonic() + 45
            while len(list(answers.iterdir())) < 40 and time.monotonic() < until:
                time.sleep(0.1)
        finally:
            for process in reversed(running):
                process.terminate()
                process.wait(30)
            Path(f"/dev/shm/penstock-{os.geteuid()}-{quota}").unlink(missing_ok=True)  # nobody uses that name again
        done = [answer.name.rsplit("-", 1) for answer in answers.iterdir()]
        print(f"{len({text for text, _ in done})} tasks by {len({worker for _, worker in done})} processes")
        print(f"The provider saw: {provider.summary()}")
        if provider.summary().refused:
            raise SystemExit("the workers together used more than the quota")


if __name__ == "__main__":
    main()
