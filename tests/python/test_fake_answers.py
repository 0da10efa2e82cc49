"""What the fake provider answers: texts, tool calls and structured output, as told or made up, read by the real SDK."""

from __future__ import annotations

import json
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel, Field

from penstock.testing.provider import Answer, FakeProvider, Prompt, ToolCall
from penstock.testing.provider.answer import pieces
from penstock.testing.provider.schema import example

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 3}},
            "required": ["city"],
        },
    },
}
OTHER: Any = {"type": "function", "function": {"name": "tides", "parameters": {"type": "object", "properties": {}}}}
USER: Any = {"role": "user", "content": "How is the ice?"}


def client(provider: FakeProvider, **headers: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=provider.base_url, api_key="k", max_retries=0, default_headers=headers)


def chat(sdk: openai.OpenAI, *messages: Any, **options: Any) -> Any:
    return sdk.chat.completions.create(model="m", messages=list(messages) or [USER], **options)


def called(answer: Any) -> list[tuple[str, Any]]:
    calls = answer.choices[0].message.tool_calls or []
    return [(call.function.name, json.loads(call.function.arguments)) for call in calls]


# Schemas


class Boat(BaseModel):
    name: str = Field(min_length=60)
    kind: Literal["barge", "cutter"]
    length: float = Field(gt=3, lt=4)
    crew: list[int] = Field(min_length=2)
    sister: Boat | None = None
    code: str = Field(pattern=r"^\d{4}$")
    afloat: bool
    tags: dict[str, str] = {}


def test_an_example_is_what_its_schema_accepts() -> None:
    boat = Boat.model_validate(example(Boat.model_json_schema()))
    assert boat.sister is not None  # and so on, until it is deep enough
    assert boat == Boat.model_validate(example(Boat.model_json_schema()))


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "STRING", "maxLength": 2}, "se"),
        ({"type": "INTEGER", "minimum": 7}, 7),
        ({"type": "integer", "exclusiveMinimum": 7}, 8),
        ({"type": "number", "maximum": -2}, -2),
        ({"type": "number", "exclusiveMinimum": 4, "exclusiveMaximum": 5}, 4.5),
        ({"type": "integer", "exclusiveMaximum": 1}, 0),
        ({"type": "integer", "multipleOf": 5}, 5),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"type": ["null", "integer"]}, 1),
        ({"anyOf": [{"type": "null"}, {"const": "x"}]}, "x"),
        ({"allOf": [{"properties": {"a": {"enum": [4]}}}, {"properties": {"b": {"const": 2}}}]}, {"a": 4, "b": 2}),
        ({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}]}, [1, 2]),
        ({"type": "array"}, []),
        ({"type": "array", "items": {"const": 1}, "maxItems": 0}, []),
        ({"type": "string", "format": "date"}, "2026-01-15"),
        ({"$ref": "#/nowhere"}, "sea"),
        ({"type": "string", "pattern": "("}, "sea"),
        ({}, "sea"),
    ],
)
def test_examples(schema: Any, value: Any) -> None:
    assert example(schema) == value


def test_a_schema_of_itself_ends() -> None:
    tree = {"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}}
    assert json.dumps(example(tree)).count("{") < 300


# Made up


def test_tools_are_called_once_and_then_there_is_a_text() -> None:
    with FakeProvider(latency=0) as provider, client(provider) as sdk:
        first = chat(sdk, tools=[WEATHER, OTHER])
        assert first.choices[0].finish_reason == "tool_calls"
        assert first.choices[0].message.content is None
        assert called(first) == [("weather", {"city": example({"type": "string"}), "days": 3})]
        assert first.usage.completion_tokens > 1
        result = {"role": "tool", "tool_call_id": first.choices[0].message.tool_calls[0].id, "content": "cold"}
        done: Any = [USER, first.choices[0].message.model_dump(exclude_none=True), result]
        second = chat(sdk, *done, tools=[WEATHER, OTHER])
        assert (second.choices[0].finish_reason, called(second)) == ("stop", [])
        assert called(chat(sdk, *done, USER, tools=[WEATHER, OTHER]))[0][0] == "weather"


def test_who_insists_on_a_tool_gets_the_next_or_the_named_one() -> None:
    with FakeProvider(latency=0) as provider, client(provider) as sdk:
        both: Any = [WEATHER, OTHER]
        named = {"type": "function", "function": {"name": "tides"}}
        assert called(chat(sdk, tools=both, tool_choice=named)) == [("tides", {})]
        first = chat(sdk, tools=both, tool_choice="required").choices[0].message
        assert first.tool_calls[0].function.name == "weather"
        done = [USER, first.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": "1", "content": "cold"}]
        assert called(chat(sdk, *done, tools=both, tool_choice="required")) == [("tides", {})]
        assert called(chat(sdk, tools=both, tool_choice="none")) == []


def test_structured_output_parses() -> None:
    with FakeProvider(latency=0) as provider, client(provider) as sdk:
        parsed = sdk.chat.completions.parse(model="m", messages=[USER], response_format=Boat)
        assert isinstance(parsed.choices[0].message.parsed, Boat)
        loose = chat(sdk, response_format={"type": "json_object"})
        assert isinstance(json.loads(loose.choices[0].message.content), dict)


@pytest.mark.parametrize("chunks", [1, 3, 16])
def test_tool_calls_are_streamed(chunks: int) -> None:
    with FakeProvider(latency=0, stream_chunks=chunks) as provider, client(provider) as sdk:
        with sdk.chat.completions.stream(
            model="m", messages=[USER], tools=[WEATHER], stream_options={"include_usage": True}
        ) as stream:
            pieces = [event for event in stream if event.type == "tool_calls.function.arguments.delta"]
            final = stream.get_final_completion()
    assert called(final) == [("weather", {"city": example({"type": "string"}), "days": 3})]
    assert final.choices[0].finish_reason == "tool_calls"
    assert final.usage is not None
    assert len(pieces) <= chunks + 1  # the SDK makes one of the call's beginning


def test_the_older_functions() -> None:
    with FakeProvider(latency=0) as provider, client(provider) as sdk:
        functions: Any = [WEATHER["function"]]
        answer = chat(sdk, functions=functions)
        assert answer.choices[0].finish_reason == "function_call"
        assert answer.choices[0].message.function_call.name == "weather"
        chunks = list(chat(sdk, functions=functions, stream=True))
        calls = [chunk.choices[0].delta.function_call for chunk in chunks if chunk.choices[0].delta.function_call]
        arguments = "".join(call.arguments for call in calls)
        assert json.loads(arguments) == json.loads(answer.choices[0].message.function_call.arguments)


# Told


def test_headers_tell_what_to_answer() -> None:
    with FakeProvider(latency=0) as provider:
        with client(provider, **{"x-fake-answer": "It is thin, caf%C3%A9"}) as sdk:
            assert chat(sdk, tools=[WEATHER]).choices[0].message.content == "It is thin, café"
            assert chat(sdk, max_tokens=2).choices[0].finish_reason == "length"
            assert chat(sdk, max_tokens=2).choices[0].message.content == "It is th"
        with client(provider, **{"x-fake-tool-call": "weather"}) as sdk:
            assert called(chat(sdk, tools=[WEATHER]))[0][1]["days"] == 3
        with client(provider, **{"x-fake-tool-call": 'tides {"at": 5}'}) as sdk:
            assert called(chat(sdk)) == [("tides", {"at": 5})]
        with client(provider, **{"x-fake-tool-call": "tides {"}) as sdk:
            with pytest.raises(openai.BadRequestError, match="must be a name and a JSON object"):
                chat(sdk)


@pytest.mark.parametrize(
    ("told", "text", "calls"),
    [
        ("thin", "thin", []),
        (3, "the sea was ", []),
        ({"ice": "thin"}, '{"ice":"thin"}', []),
        (ToolCall("tides", {"at": 5}), None, [("tides", {"at": 5})]),
        ([ToolCall("tides", {}), ToolCall("weather", {})], None, [("tides", {}), ("weather", {})]),
        (Answer("I look.", (ToolCall("tides", {}),)), "I look.", [("tides", {})]),
        ("", "", []),
    ],
)
def test_a_script_tells_what_to_answer(told: Any, text: Any, calls: Any) -> None:
    with FakeProvider(latency=0, answer=lambda prompt: told) as provider, client(provider) as sdk:
        answer = chat(sdk)
        assert answer.choices[0].message.content == text
        assert called(answer) == calls
        deltas = [chunk.choices[0].delta for chunk in chat(sdk, stream=True)]
        assert "".join(delta.content or "" for delta in deltas) == (text or "")
        starts = [call for delta in deltas for call in delta.tool_calls or [] if call.id]
        assert [call.function.name for call in starts] == [name for name, _ in calls]


def test_a_script_sees_what_was_asked_and_may_leave_it_be() -> None:
    seen: list[Prompt] = []

    def script(prompt: Prompt) -> str | None:
        seen.append(prompt)
        return "four" if prompt.text.endswith("2 + 2?") else None

    with FakeProvider(latency=0, answer=script) as provider, client(provider) as sdk:
        parts: Any = {
            "role": "user",
            "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "2 + 2?"}],
        }
        assert chat(sdk, parts, max_tokens=9).choices[0].message.content == "four"
        assert len(chat(sdk, max_tokens=9).choices[0].message.content) == 36
        with pytest.raises(openai.RateLimitError):  # the script is asked for what is then refused, too
            chat(sdk, extra_headers={"x-fake-fault": "throttled"})
    first = seen[0]
    assert (first.dialect, first.endpoint, first.model) == ("openai", "/v1/chat/completions", "m")
    assert (first.text, first.max_tokens, first.tools, first.body["max_tokens"]) == ("What is 2 + 2?", 9, (), 9)
    assert first.headers["Authorization"] == "Bearer k"


def test_pieces_are_whole_tokens() -> None:
    assert pieces("", 4) == [""]
    assert pieces("abcdefghij", 2) == ["abcd", "efghij"]
    assert pieces("abcd", 9) == ["abcd"]
    assert "".join(pieces("x" * 4001, 16)) == "x" * 4001


# Free


def test_what_costs_nothing() -> None:
    with FakeProvider(requests=1, latency=0, models={"gpt-4o", "ice-1"}) as provider, client(provider) as sdk:
        assert {model.id for model in sdk.models.list()} == {"gpt-4o", "ice-1"}
        assert sdk.models.retrieve("ice-1").id == "ice-1"
        file = sdk.files.create(file=b"{}", purpose="batch")
        assert sdk.files.retrieve(file.id).status == "processed"
        batch = sdk.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
        assert sdk.batches.retrieve(batch.id).status == "completed"
        assert sdk.batches.cancel(batch.id).status == "cancelling"
        assert list(sdk.batches.list()) == []
        assert sdk.files.delete(file.id).deleted
        summary = provider.summary()
        assert (summary.sent, summary.free, summary.admitted, summary.failed) == (9, 9, 0, 0)
        assert {arrival.requests for arrival in provider.log} == {0}
        sdk.chat.completions.create(model="gpt-4o", messages=[USER])
        assert provider.summary().admitted == 1


def test_what_is_made_up_is_counted_as_it_is() -> None:
    with FakeProvider(latency=0) as provider, client(provider) as sdk:
        form = {"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER["function"]["parameters"]}}
        answer = chat(sdk, response_format=form)
        text = answer.choices[0].message.content
        assert json.loads(text) == {"city": "sea", "days": 3}
        assert answer.usage.completion_tokens == -(-len(text) // 4)
