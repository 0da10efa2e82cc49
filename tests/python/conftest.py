"""What is tested where: the SDKs of all providers stand in the default environment alone."""

from __future__ import annotations

import importlib.util
import os

#: Files that are of no use without the group ``sdks``.
_SDKS = ["test_fake_bedrock.py", "test_fake_gemini.py", "test_fake_other_sdks.py"]
_SDKS += ["test_integrations_bedrock.py", "test_integrations_sdk.py"]

# With PENSTOCK_SDKS=1 they must be there: what is missing is an error.
_here = os.environ.get("PENSTOCK_SDKS") == "1" or importlib.util.find_spec("cohere") is not None
collect_ignore = [] if _here else _SDKS
