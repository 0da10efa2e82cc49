"""What the tests of all frameworks share: a provider on loopback, and nothing that calls anybody else.

Each directory beside this file has an environment of its own, which ``scripts/test`` makes from its requirements.
"""

from __future__ import annotations

import gc
import os
import warnings
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.testing.provider import FakeProvider

#: Read when a framework is imported, so they stand before any of them is: no tracing, no telemetry, no keys of anyone,
#: no look at the network for a model's price.
os.environ.update(
    {
        "ANONYMIZED_TELEMETRY": "false",
        "AUTOGEN_USE_DOCKER": "0",
        "LANGCHAIN_TRACING_V2": "false",
        "LANGSMITH_TRACING": "false",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_TELEMETRY": "False",
        "OPENAI_API_KEY": "any",
        "ANTHROPIC_API_KEY": "any",
        "TOKENIZERS_PARALLELISM": "false",
    }
)
for name in ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "ANTHROPIC_BASE_URL", "LANGSMITH_API_KEY", "LANGCHAIN_API_KEY"):
    os.environ.pop(name, None)


def pytest_configure(config: pytest.Config) -> None:
    # pyproject makes warnings errors; those of other people's packages, at each other, are not ours to mend.
    for line in (
        "ignore::DeprecationWarning",
        "ignore::PendingDeprecationWarning",
        "ignore::FutureWarning",
        "ignore:.*Pydantic.*:UserWarning",
        "ignore:flaml.*:UserWarning",
        "ignore:Resolved model mismatch.*:UserWarning",  # AutoGen: the fake provider names no dates
        "ignore:Unexpected type for token usage:UserWarning",  # LangChain, of what OpenAI reports as null
        # SDK clients that nobody closes: frameworks make them, and keep them for the life of the process.
        "ignore:unclosed.*:ResourceWarning",
        # LlamaIndex's memory of a chat.
        "ignore:.*aiosqlite.*was deleted before being closed.*:ResourceWarning",
    ):
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    """A provider that refuses nothing, in a thread of its own, so that it serves threads and loops alike."""
    from penstock.testing.provider import FakeProvider

    with FakeProvider(latency=0.01, latency_jitter=0.0) as running:
        yield running


@pytest.fixture(scope="session", autouse=True)
def connections_of_loops_that_are_over() -> Iterator[None]:
    """Frameworks call `asyncio.run` again and again: the connections of a loop that is closed can only be dropped."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
