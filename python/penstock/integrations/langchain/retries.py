"""Retry layers around models: turned off while Penstock owns retries, and restored."""

from __future__ import annotations

from typing import Any

#: How many attempts there are, by the field that says so, and what means one attempt.
_ONE_ATTEMPT = {"max_attempt_number": 1, "max_retries": 0}
_BEFORE = "_penstock_retries"


def turn_off(layer: Any) -> None:
    """Let a layer make one attempt."""
    if _BEFORE in layer.__dict__:
        return
    before = {name: layer.__dict__[name] for name in _ONE_ATTEMPT if name in layer.__dict__}
    layer.__dict__[_BEFORE] = before
    layer.__dict__.update({name: _ONE_ATTEMPT[name] for name in before})


def restore(layer: Any) -> None:
    """Let a layer do as it did."""
    layer.__dict__.update(layer.__dict__.pop(_BEFORE, {}))
