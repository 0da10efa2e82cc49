"""Answers that are more than text: a call of a tool, or JSON as a schema asks for it, so that agents take their steps.

Which tool is called is fixed by the request alone. A model that may call tools calls the first, and answers in text
once it was told a result; one that must call some goes on to the next, so that an agent with a tool for its final
answer comes to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Reply", "Tool", "choose", "instance"]

# Schemas that refer to themselves end here.
DEPTH = 6


class Tool(NamedTuple):
    """A tool that a request offers."""

    name: str
    schema: object


class Reply(NamedTuple):
    """What an answer says instead of filler."""

    text: str
    """JSON: the answer itself, or the arguments of the call."""
    tool: str | None = None
    """The tool that is called."""


def choose(tools: Sequence[Tool], called: Sequence[str], choice: str = "auto") -> Reply | None:
    """Choose the tool to call, or None to answer in text.

    ``called`` are the tools called since the user last spoke. ``choice`` is ``"auto"``, ``"required"``, ``"none"`` or
    the name of a tool.
    """
    if not tools or choice == "none" or (choice == "auto" and called):
        return None
    left = [tool for tool in tools if tool.name not in called] or list(tools[-1:])
    named = [tool for tool in tools if tool.name == choice]
    tool = (named or left)[0]
    return Reply(json.dumps(instance(tool.schema), separators=(",", ":")), tool.name)


def instance(schema: object) -> Any:
    """The plainest value that a JSON schema describes: every property, and the first of what is allowed.

    >>> instance({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}})
    {'city': 'sea', 'days': 1}
    """
    return _instance(schema, schema, 0)


def _instance(schema: object, root: object, depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > DEPTH:
        return None
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return _instance(_resolve(reference, root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    for name in ("enum", "anyOf", "oneOf", "allOf"):
        options = schema.get(name)
        if isinstance(options, Sequence) and options and not isinstance(options, str):
            return options[0] if name == "enum" else _instance(options[0], root, depth + 1)
    kind = schema.get("type")
    if isinstance(kind, Sequence) and kind and not isinstance(kind, str):
        kind = kind[0]
    properties = schema.get("properties")
    if kind == "object" or isinstance(properties, Mapping):
        properties = properties if isinstance(properties, Mapping) else {}
        return {name: _instance(inner, root, depth + 1) for name, inner in properties.items()}
    if kind == "array":
        return [_instance(schema.get("items"), root, depth + 1)] if schema.get("items") else []
    return {"string": "sea", "integer": 1, "number": 1.0, "boolean": True}.get(kind) if isinstance(kind, str) else None


def _resolve(reference: str, root: object) -> object:
    """What ``#/$defs/Name`` points to."""
    found: object = root
    for step in reference.removeprefix("#").split("/"):
        if step:
            found = found.get(step) if isinstance(found, Mapping) else None
    return found
