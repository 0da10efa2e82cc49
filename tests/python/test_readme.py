"""Every Python block of the README runs, one after another, as in ``python -m asyncio``."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pages
import pytest

from penstock.testing.provider import FakeProvider

README = pages.page("README.md")
#: The name of the memory that the README shares between processes: another process's may be there under its name.
MEMORY = f"readme-{os.getpid()}"


def test_the_first_screen_is_what_it_is_two_commands_and_ten_lines_of_use() -> None:
    text = README.read_text(encoding="utf-8")
    first, second = list(pages.BLOCK.finditer(text))[:2]
    assert [line.split("#")[0].strip() for line in first[2].splitlines()] == ["make demo", "make test"]
    assert second[1] == "python"
    assert sum(bool(line.strip()) for line in second[2].splitlines()) <= 10
    assert text[: second.end()].count("\n") <= 40


@pytest.mark.slow
def test_every_block_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # where the blocks write their files

    async def session(names: dict[str, Any]) -> None:
        await pages.run(pages.compiled(README, replaced={"shm://openai": f"shm://{MEMORY}"}), names)
        await names["client"].close()
        await names["llm"].close()
        names["blocking"].close()

    with FakeProvider(latency=0.01) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        names: dict[str, Any] = {"__name__": "readme", "asyncio": asyncio}
        try:
            asyncio.run(session(names))
        finally:
            for file in Path("/dev/shm").glob(f"penstock-*-{MEMORY}"):
                file.unlink()
    summary = provider.summary()
    assert (summary.refused, summary.failed) == (0, 0)
    assert summary.admitted >= 20
    printed = capsys.readouterr().out
    assert "come back in" in printed
    assert "2,000 tokens is more than 1,000" in printed
    assert len(names["vectors"]) == len(names["labels"]) == len(names["results"]) == 3
