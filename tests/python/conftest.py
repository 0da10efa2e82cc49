"""What is tested where, and what first."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

#: Files that are of no use without the group ``sdks``.
_SDKS = ["test_fake_bedrock.py", "test_fake_gemini.py", "test_fake_other_sdks.py"]
_SDKS += ["test_integrations_bedrock.py", "test_integrations_sdk.py"]

# With PENSTOCK_SDKS=1 they must be there: what is missing is an error.
_here = os.environ.get("PENSTOCK_SDKS") == "1" or importlib.util.find_spec("cohere") is not None
collect_ignore = [] if _here else _SDKS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Test what processes share first, while this one's clock is the host's: virtual time leaves it ahead for good."""
    items.sort(key=lambda item: not item.path.name.startswith("test_shared_memory"))


def pytest_collection_finish() -> None:
    """What was imported stays: the hundreds of collections of garbage in tests need not look through it."""
    if importlib.util.find_spec("hypothesis") is not None:
        importlib.import_module("hypothesis")  # it asks who refers to trio's random numbers: nobody that is frozen
    gc.collect()
    gc.freeze()
