"""The fake provider's answers that are more than text: calls of tools, and JSON by a schema."""

import json

import pytest
from openai import OpenAI

from penstock.testing.provider import FakeProvider
from penstock.testing.provider.replies import Tool, choose, instance

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]
QUESTION = [{"role": "user", "content": "How is the weather?"}]


@pytest.fixture
def client():
    with FakeProvider(latency=0) as provider:
        yield OpenAI(base_url=provider.base_url, api_key="any", max_retries=0)


def test_a_request_with_tools_is_answered_with_a_call_and_then_in_text(client) -> None:
    first = client.chat.completions.create(model="m", messages=QUESTION, tools=TOOLS)
    message = first.choices[0].message
    call = message.tool_calls[0]
    assert (first.choices[0].finish_reason, message.content) == ("tool_calls", None)
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "sea", "days": 1})

    told = [*QUESTION, message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "dry"}]
    second = client.chat.completions.create(model="m", messages=told, tools=TOOLS)
    assert second.choices[0].finish_reason == "stop"
    assert second.choices[0].message.content
    assert second.choices[0].message.tool_calls is None


def test_a_streamed_call_adds_up_to_the_same(client) -> None:
    chunks = list(client.chat.completions.create(model="m", messages=QUESTION, tools=TOOLS, stream=True))
    parts = [part for chunk in chunks for choice in chunk.choices for part in choice.delta.tool_calls or ()]
    assert [part.function.name for part in parts if part.function.name] == ["weather"]
    assert json.loads("".join(part.function.arguments for part in parts)) == {"city": "sea", "days": 1}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_a_schema_is_answered_with_json_that_fits_and_its_tokens_are_counted(client) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER}}
    answer = client.chat.completions.create(model="m", messages=QUESTION, response_format=form)
    text = answer.choices[0].message.content
    assert json.loads(text) == {"city": "sea", "days": 1}
    assert answer.usage.completion_tokens == -(-len(text) // 4)


@pytest.mark.parametrize(
    ("called", "choice", "expected"),
    [
        ([], "auto", "one"),
        (["one"], "auto", None),
        ([], "none", None),
        ([], "two", "two"),
        (["one"], "required", "two"),
        (["one", "two"], "required", "two"),
    ],
)
def test_which_tool_is_called(called, choice, expected) -> None:
    reply = choose([Tool("one", {}), Tool("two", {})], called, choice)
    assert (reply and reply.tool) == expected


def test_no_tools_no_call() -> None:
    assert choose([], [], "required") is None


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"enum": ["red", "blue"]}, "red"),
        ({"const": 3}, 3),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, 1.0),
        ({"type": ["boolean", "null"]}, True),
        ({"type": "array", "items": {"type": "string"}}, ["sea"]),
        ({"type": "array"}, []),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"a": {"type": "string"}}}}}, {"a": "sea"}),
        ({"type": "null"}, None),
        ("no schema", None),
    ],
)
def test_the_plainest_value_of_a_schema(schema, expected) -> None:
    assert instance(schema) == expected


def test_a_schema_that_refers_to_itself_ends() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#"}}}
    assert json.dumps(instance(node)).count("next") < 10
