"""What costs nothing at OpenAI: lists of models, files, batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..dialect import Free, json_object

if TYPE_CHECKING:
    from collections.abc import Collection

    from ..dialect import Incoming

__all__ = ["read_free"]

MODELS = ("gpt-4o", "gpt-4o-mini", "text-embedding-3-small")
CREATED = 1_768_000_000


def read_free(request: Incoming, path: str, models: Collection[str] | None) -> Free | None:
    """Answer a request that costs nothing; None if it is none. Nothing is kept: a batch is completed at once."""
    head, _, rest = path.strip("/").partition("/")
    if head == "models" and request.method == "GET":
        return Free(_model(rest) if rest else _list([_model(name) for name in sorted(models or MODELS)]))
    if head == "files":
        return _files(request, rest)
    if head == "batches":
        return _batches(request, rest)
    return None


def _files(request: Incoming, rest: str) -> Free | None:
    if request.method == "DELETE" and rest:
        return Free({"id": rest, "object": "file", "deleted": True})
    if request.method == "POST" and not rest:
        return Free(_file("file-000000000000000000000001", len(request.body)))
    if request.method == "GET":
        return Free(_file(rest.partition("/")[0], 0) if rest else _list([_file("file-000000000000000000000001", 0)]))
    return None


def _batches(request: Incoming, rest: str) -> Free | None:
    if request.method == "POST":
        body = json_object(request.body) or {}
        status = "validating" if not rest else "cancelling"
        return Free(_batch(rest.partition("/")[0] or "batch_000000000000000000000001", status, body))
    if request.method == "GET":
        return Free(_batch(rest, "completed", {}) if rest else _list([]))
    return None


def _list(data: list[dict[str, Any]]) -> dict[str, Any]:
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"object": "list", "data": data, "has_more": False, **ends}


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "penstock"}


def _file(name: str, size: int) -> dict[str, Any]:
    return {
        "id": name,
        "object": "file",
        "bytes": size,
        "created_at": CREATED,
        "filename": "requests.jsonl",
        "purpose": "batch",
        "status": "processed",
    }


def _batch(name: str, status: str, body: Any) -> dict[str, Any]:
    return {
        "id": name,
        "object": "batch",
        "endpoint": body.get("endpoint", "/v1/chat/completions"),
        "input_file_id": body.get("input_file_id", "file-000000000000000000000001"),
        "completion_window": body.get("completion_window", "24h"),
        "status": status,
        "created_at": CREATED,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
    }
