"""Every file in ``examples/`` runs as it is, without a warning."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
#: What each prints when it does what it says.
PRINTED = {
    "01_gather.py": ("of 40 calls failed", "gate.gather: 40 of 40 calls answered", " 0 refused"),
    "decorate.py": ("3 granted", " 0 refused"),
    "priorities.py": ("the person waited", " 0 refused"),
    "streaming.py": ("story 5: 200 words", "afterwards 0 under way", " 0 refused"),
    "tenants.py": ("though it came last", " 0 refused"),
    "threads.py": ("30 answers", "not now", " 0 refused"),
}


def test_each_is_listed_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py") if not path.name.startswith("_")} == PRINTED.keys()


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("name", PRINTED)
def test_it_runs(name: str) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENAI_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        timeout=50,
        env=environment | {"PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for text in PRINTED[name]:
        assert text in done.stdout
