"""Makes up a value that a JSON schema accepts, so that structured output and tool calls can be answered."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["example"]

# Deeper than this, what may be left out is left out: schemas refer to themselves.
DEEPEST = 6

WORD = "sea"

FORMATS = {
    "date": "2026-01-15",
    "date-time": "2026-01-15T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "ice@example.com",
    "hostname": "example.com",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "uri": "https://example.com/ice",
    "uuid": "00000000-0000-4000-8000-000000000001",
}
# Tried in turn where a pattern is given: what the common ones accept.
CANDIDATES = ("a", "A", "1", "ab", "AB", "abc", "12", "123", "1234", "12345", "a1", "A1", "a-b", "a_b", "true")

Schema = Mapping[str, Any]


def example(schema: Schema) -> Any:
    """Make a value for a schema of the kind that SDKs and frameworks send, the same each time.

    Understands types (also Gemini's in capitals, and lists of types), ``enum``, ``const``, ``$ref`` into the schema
    itself, ``anyOf``, ``oneOf``, ``allOf``, ``nullable``, bounds, formats and simple patterns. What it does not
    understand it leaves out of account.
    """
    return _value(schema, schema, 0)


def _value(schema: object, root: Schema, depth: int) -> Any:
    if not isinstance(schema, Mapping):
        return WORD  # `true`: anything
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return _value(_resolve(reference, root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    for name in ("anyOf", "oneOf"):
        if isinstance(schema.get(name), list) and schema[name]:
            return _value(_choice(schema[name], depth), root, depth + 1)
    if isinstance(schema.get("allOf"), list) and schema["allOf"]:
        return _value(_merged([schema, *schema["allOf"]], root), root, depth + 1)
    return _of_type(_type(schema, depth), schema, root, depth)


def _of_type(kind: str, schema: Schema, root: Schema, depth: int) -> Any:
    if kind == "object":
        return _object(schema, root, depth)
    if kind == "array":
        return _array(schema, root, depth)
    if kind in ("integer", "number"):
        return _number(kind, schema)
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    return _string(schema)


def _type(schema: Schema, depth: int) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kinds = [item for item in kind if isinstance(item, str)]
        optional = depth > DEEPEST and "null" in kinds
        kind = "null" if optional else next((item for item in kinds if item != "null"), "null")
    if isinstance(kind, str):
        return kind.lower()
    if "properties" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else "string"


def _resolve(reference: str, root: Schema) -> object:
    """Follow a reference such as ``#/$defs/Name``; what leads nowhere accepts anything."""
    found: object = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if part:
            found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return found


def _choice(options: list[object], depth: int) -> object:
    """The first that is not null; at depth, null if that is allowed."""
    null = next((option for option in options if isinstance(option, Mapping) and option.get("type") == "null"), None)
    if depth > DEEPEST and null is not None:
        return null
    return next((option for option in options if option is not null), null)


def _merged(parts: list[object], root: Schema) -> Schema:
    merged: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    required: list[str] = []
    for part in parts:
        whole = _resolve(part["$ref"], root) if isinstance(part, Mapping) and "$ref" in part else part
        if isinstance(whole, Mapping):
            merged.update({name: value for name, value in whole.items() if name != "allOf"})
            properties.update(_mapping(whole.get("properties")))
            required.extend(whole.get("required") or ())
    return {**merged, "properties": properties, "required": required} if properties else merged


def _mapping(value: object) -> Schema:
    return value if isinstance(value, Mapping) else {}


def _object(schema: Schema, root: Schema, depth: int) -> dict[str, Any]:
    required = schema.get("required") or ()
    properties = _mapping(schema.get("properties"))
    return {
        name: _value(inner, root, depth + 1)
        for name, inner in properties.items()
        if name in required or depth <= DEEPEST
    }


def _array(schema: Schema, root: Schema, depth: int) -> list[Any]:
    fixed = schema.get("prefixItems")
    if isinstance(fixed, list):
        return [_value(item, root, depth + 1) for item in fixed]
    least = schema.get("minItems")
    wanted = least if isinstance(least, int) else 0
    if "items" in schema and depth <= DEEPEST:
        wanted = max(wanted, 1)
    most = schema.get("maxItems")
    if isinstance(most, int):
        wanted = min(wanted, most)
    return [_value(schema.get("items"), root, depth + 1) for _ in range(wanted)]


def _number(kind: str, schema: Schema) -> float:
    least, most = _bound(schema, "minimum"), _bound(schema, "maximum")
    above, below = _bound(schema, "exclusiveMinimum"), _bound(schema, "exclusiveMaximum")
    value: float = 1
    if least is not None:
        value = max(value, least)
    if most is not None:
        value = min(value, most)
    # Between exclusive bounds: the middle, or one step from the only one.
    if above is not None and value <= above:
        value = above + 1 if below is None or kind == "integer" else (above + below) / 2
    if below is not None and value >= below:
        value = below - 1 if above is None or kind == "integer" else (above + below) / 2
    step = _bound(schema, "multipleOf")
    if step is not None and step > 0:
        value = -(-value // step) * step
    return int(value) if kind == "integer" else value


def _bound(schema: Schema, name: str) -> float | None:
    limit = schema.get(name)
    return limit if isinstance(limit, (int, float)) and not isinstance(limit, bool) else None


def _string(schema: Schema) -> str:
    known = FORMATS.get(str(schema.get("format")))
    if known is not None:
        return known
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        try:
            found = next((text for text in (*CANDIDATES, *FORMATS.values()) if re.search(pattern, text)), None)
        except re.error:
            found = None
        if found is not None:
            return found
    least, most = schema.get("minLength"), schema.get("maxLength")
    text = WORD
    if isinstance(least, int) and least > len(text):
        text = (f"{WORD} " * (least // len(WORD) + 1))[:least]
    return text[:most] if isinstance(most, int) else text
