"""Reading OpenAI's request bodies as OpenAI does, and its errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..answer import MOST_TOKENS
from ..dialect import Problem, encode, json_object
from ..prompt import Tool

if TYPE_CHECKING:
    from ..prompt import JSONObject

__all__ = [
    "boolean",
    "error",
    "integer",
    "invalid",
    "missing",
    "name_of_choice",
    "parse",
    "problem",
    "schema_of",
    "text",
    "tools_of",
]


def parse(body: bytes) -> JSONObject:
    """Read the body, or raise the 400 for what is not a JSON object."""
    request = json_object(body)
    if request is None:
        message = (
            "We could not parse the JSON body of your request. "
            "(HINT: This likely means you aren't using your HTTP library correctly. "
            "The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)"
        )
        raise problem(400, message)
    return request


def text(request: JSONObject, name: str, message: str) -> str:
    """Read a string that must be there and not empty."""
    value = request.get(name)
    if not isinstance(value, str) or not value:
        raise problem(400, message, request=request)
    return value


def boolean(request: JSONObject, name: str) -> None:
    """Check what must be true or false, if it is there."""
    value = request.get(name)
    if value is not None and not isinstance(value, bool):
        raise invalid(request, name, "expected a boolean", "invalid_type")


def integer(request: JSONObject, name: str, maximum: int = MOST_TOKENS) -> int | None:
    """Read a whole number from 1 to ``maximum``, or None where it is absent or null."""
    value = request.get(name)
    if value is None:
        return None
    if type(value) is not int:
        raise invalid(request, name, "expected an integer", "invalid_type")
    if value < 1:
        detail = f"integer below minimum value. Expected a value >= 1, but got {value} instead"
        raise invalid(request, name, detail, "integer_below_min_value")
    if value > maximum:
        detail = f"integer above maximum value. Expected a value <= {maximum}, but got {value} instead"
        raise invalid(request, name, detail, "integer_above_max_value")
    return value


def missing(request: JSONObject, name: str) -> Problem:
    """Make the 400 for what must be there."""
    message = f"Missing required parameter: '{name}'."
    return problem(400, message, code="missing_required_parameter", param=name, request=request)


def invalid(request: JSONObject, name: str, detail: str, code: str) -> Problem:
    """Make the 400 for what is not as it must be."""
    return problem(400, f"Invalid '{name}': {detail}.", code=code, param=name, request=request)


def problem(
    status: int,
    message: str,
    *,
    code: str | None = None,
    param: str | None = None,
    counts: bool = True,
    request: JSONObject | None = None,
) -> Problem:
    """Make the answer to a request that cannot be understood."""
    body = error(message, kind="invalid_request_error", code=code, param=param)
    model = None if request is None else request.get("model")
    return Problem(status, body, counts=counts, model=model if isinstance(model, str) else None)


def error(message: str, *, kind: str, code: str | None, param: str | None = None) -> bytes:
    """Write the body of an error."""
    return encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def tools_of(request: JSONObject) -> tuple[Tool, ...]:
    """Find the functions among the tools: of chat completions (also the older ``functions``), or of responses."""
    given = request.get("tools") or request.get("functions")
    found = []
    for tool in given if isinstance(given, list) else ():
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(name, str) and isinstance(function, dict):
            found.append(Tool(name, _mapping(function.get("parameters"))))
    return tuple(found)


def name_of_choice(choice: Any) -> str:
    """Read ``tool_choice``: ``"auto"``, ``"none"``, ``"required"``, or a tool's name."""
    if isinstance(choice, str):
        return "required" if choice == "any" else choice
    if not isinstance(choice, dict):
        return "auto"
    if choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools", choice)
        return name_of_choice(allowed.get("mode")) if isinstance(allowed, dict) else "auto"
    function = choice.get("function", choice)
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else "auto"


def schema_of(form: Any) -> tuple[JSONObject | None, bool]:
    """Read ``response_format`` (or ``text.format``): the schema if there is one, and whether JSON is asked for."""
    if not isinstance(form, dict):
        return None, False
    if form.get("type") == "json_schema":
        return _mapping(_mapping(form.get("json_schema", form)).get("schema")), True
    return None, form.get("type") == "json_object"


def _mapping(value: Any) -> JSONObject:
    return value if isinstance(value, Mapping) else {}
