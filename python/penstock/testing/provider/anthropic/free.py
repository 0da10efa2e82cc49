"""What costs nothing at Anthropic: lists of models, counts of tokens, batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..dialect import Free, json_object
from ..tokens import estimate
from .messages import characters

if TYPE_CHECKING:
    from collections.abc import Collection

    from ..dialect import Incoming

__all__ = ["read_free"]

MODELS = ("claude-haiku-4-5", "claude-sonnet-4-5")
CREATED = "2026-01-15T12:00:00Z"


def read_free(request: Incoming, models: Collection[str] | None) -> Free | None:
    """Answer a request that costs nothing; None if it is none. Nothing is kept: a batch is completed at once."""
    head, _, rest = request.path.removeprefix("/v1/").partition("/")
    if head == "models" and request.method == "GET":
        return Free(_model(rest) if rest else _list([_model(name) for name in sorted(models or MODELS)]))
    if head == "messages" and rest == "count_tokens" and request.method == "POST":
        return Free({"input_tokens": estimate(characters(json_object(request.body) or {}))})
    if head == "messages" and rest.partition("/")[0] == "batches":
        name = rest.removeprefix("batches").strip("/").partition("/")[0]
        if request.method == "GET" and not name:
            return Free(_list([]))
        return Free(_batch(name or "msgbatch_000000000000000000000001", ended=request.method == "GET"))
    return None


def _list(data: list[dict[str, Any]]) -> dict[str, Any]:
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"data": data, "has_more": False, **ends}


def _model(name: str) -> dict[str, Any]:
    return {"type": "model", "id": name, "display_name": name, "created_at": CREATED}


def _batch(name: str, *, ended: bool) -> dict[str, Any]:
    return {
        "id": name,
        "type": "message_batch",
        "processing_status": "ended" if ended else "in_progress",
        "request_counts": {"processing": 0, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0},
        "created_at": CREATED,
        "expires_at": CREATED,
        "ended_at": CREATED if ended else None,
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": None,
    }
