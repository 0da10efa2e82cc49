"""What results say that they used: of OpenAI, Anthropic, Google, LangChain, LlamaIndex and AutoGen."""

from __future__ import annotations

import collections
import dataclasses
import time
import types
from typing import Any
from unittest import mock

import pytest
from loops import lasting, spent

from penstock import Limiter, Usage
from penstock.usage import usage_of

Plain = types.SimpleNamespace


# Real classes, where the package is there.


def completion(**usage: Any) -> Any:
    chat = pytest.importorskip("openai.types.chat")
    return chat.ChatCompletion.model_validate(
        {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}],
            "usage": usage or None,
        }
    )  # fmt: skip


CHAT = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}


def test_openai_chat() -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 20}, "completion_tokens_details": {"reasoning_tokens": 8}}
    result = completion(**CHAT, **details)
    assert usage_of(result) == Usage(42, 30, 12)
    assert usage_of(result.model_dump()) == Usage(42, 30, 12)
    assert usage_of(completion()) is None


def test_openai_stream() -> None:
    chat = pytest.importorskip("openai.types.chat")
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini", "choices": []}
    assert usage_of(chat.ChatCompletionChunk.model_validate(chunk)) is None
    assert usage_of(chat.ChatCompletionChunk.model_validate({**chunk, "usage": CHAT})) == Usage(42, 30, 12)


def test_openai_responses() -> None:
    responses = pytest.importorskip("openai.types.responses")
    usage = {
        "input_tokens": 30, "input_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 0},
        "output_tokens": 12, "output_tokens_details": {"reasoning_tokens": 8}, "total_tokens": 42,
    }  # fmt: skip
    response = responses.Response.model_construct(id="resp_1", usage=responses.ResponseUsage.model_construct(**usage))
    assert usage_of(response) == Usage(42, 30, 12)
    done = responses.ResponseCompletedEvent.model_construct(type="response.completed", response=response)
    assert usage_of(done) == Usage(42, 30, 12)
    begun = responses.ResponseCompletedEvent.model_construct(response=responses.Response.model_construct(usage=None))
    assert usage_of(begun) is None


def test_openai_embeddings() -> None:
    openai = pytest.importorskip("openai.types")
    embedding = {"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}
    usage = {"prompt_tokens": 8, "total_tokens": 8}
    result = openai.CreateEmbeddingResponse.model_validate(
        {"object": "list", "model": "text-embedding-3-small", "data": [embedding], "usage": usage}
    )
    assert usage_of(result) == Usage(8, 8, None)


# Stand-ins with the attributes of the real ones.

ANTHROPIC = Plain(
    id="msg_1", type="message", role="assistant", content=[Plain(type="text", text="Hello")],
    usage=Plain(input_tokens=25, cache_creation_input_tokens=100, cache_read_input_tokens=5_000, output_tokens=15,
                service_tier="standard"),
)  # fmt: skip
ANTHROPIC_START = Plain(
    type="message_start", message=Plain(usage=Plain(input_tokens=25, cache_creation_input_tokens=None, output_tokens=1))
)
ANTHROPIC_DELTA = Plain(
    type="message_delta", delta=Plain(stop_reason="end_turn"), usage=Plain(output_tokens=15, input_tokens=None)
)
GOOGLE = Plain(
    text="Hello", candidates=[Plain()],
    usage_metadata=Plain(
        prompt_token_count=30, candidates_token_count=12, thoughts_token_count=8, total_token_count=50
    ),
)  # fmt: skip
LANGCHAIN_MESSAGE = Plain(
    content="Hello", type="ai", additional_kwargs={}, response_metadata={"token_usage": CHAT},
    usage_metadata={
        "input_tokens": 30, "output_tokens": 12, "total_tokens": 42, "input_token_details": {"cache_read": 9},
    },
)  # fmt: skip
LANGCHAIN_GENERATION = Plain(text="Hello", generation_info={}, message=LANGCHAIN_MESSAGE)
LLAMA_CHAT = Plain(
    message=Plain(role="assistant", content="Hello"), raw=Plain(choices=[], usage=Plain(**CHAT)), delta=None
)
LLAMA_COMPLETION = Plain(text="Hello", raw={"choices": [], "usage": CHAT}, additional_kwargs={})
AUTOGEN_RESULT = Plain(
    finish_reason="stop", content="Hello", cached=False, usage=Plain(prompt_tokens=30, completion_tokens=12)
)
AUTOGEN_MESSAGE = Plain(source="agent", content="Hello", models_usage=Plain(prompt_tokens=30, completion_tokens=12))
AUTOGEN_QUESTION = Plain(source="user", content="Hello?", models_usage=None)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (ANTHROPIC, Usage(140, 125, 15)),  # what is written to the cache counts, what is read from it does not
        (ANTHROPIC_START, Usage(26, 25, 1)),
        (ANTHROPIC_DELTA, Usage(15, None, 15)),
        (GOOGLE, Usage(50, 30, 20)),  # thoughts are output
        (LANGCHAIN_MESSAGE, Usage(42, 30, 12)),
        (LANGCHAIN_GENERATION, Usage(42, 30, 12)),
        (
            Plain(generations=[[LANGCHAIN_GENERATION]], llm_output={"token_usage": CHAT, "model_name": "x"}),
            Usage(42, 30, 12),
        ),
        (Plain(generations=[[LANGCHAIN_GENERATION], [LANGCHAIN_GENERATION]], llm_output=None), Usage(84, 60, 24)),
        (Plain(generations=[LANGCHAIN_GENERATION], llm_output={}), Usage(42, 30, 12)),
        ({"messages": [Plain(content="Hello?", type="human"), LANGCHAIN_MESSAGE]}, Usage(42, 30, 12)),
        ({"raw": LANGCHAIN_MESSAGE, "parsed": {"a": 1}, "parsing_error": None}, Usage(42, 30, 12)),
        (LLAMA_CHAT, Usage(42, 30, 12)),
        (LLAMA_COMPLETION, Usage(42, 30, 12)),
        (AUTOGEN_RESULT, Usage(42, 30, 12)),
        (Plain(chat_message=AUTOGEN_MESSAGE, inner_messages=[]), Usage(42, 30, 12)),
        (Plain(messages=[AUTOGEN_QUESTION, AUTOGEN_MESSAGE, AUTOGEN_MESSAGE], stop_reason="done"), Usage(84, 60, 24)),
        ([LANGCHAIN_MESSAGE, LANGCHAIN_MESSAGE], Usage(84, 60, 24)),
        ((AUTOGEN_RESULT, "and more"), Usage(42, 30, 12)),
        ([LANGCHAIN_MESSAGE, GOOGLE], Usage(92, 60, 32)),
        ([ANTHROPIC_DELTA, LANGCHAIN_MESSAGE], Usage(57, None, 27)),  # what one does not say, all do not say
        (collections.UserDict(usage=CHAT), Usage(42, 30, 12)),
        ({"usage": {"total_tokens": 7}}, Usage(7, None, None)),
        ({"usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}}, Usage(0, 0, 0)),
    ],
)
def test_results_are_recognised_by_their_shape(result: Any, expected: Usage) -> None:
    assert usage_of(result) == expected


class Raising:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class RaisingMapping(dict[str, Any]):
    def get(self, key: str, default: Any = None) -> Any:
        raise RuntimeError(key)


class Everything:
    """Has every attribute, as proxies and mocks do; each is another of these."""

    def __getattr__(self, name: str) -> Any:
        return Everything()


@dataclasses.dataclass
class Itself:
    @property
    def raw(self) -> Itself:
        return self

    @property
    def message(self) -> Itself:
        return Itself()


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    "result",
    [
        None,
        "text",
        b"bytes",
        5,
        1.5,
        True,
        [],
        (),
        {},
        set(),
        object(),
        int,
        len,
        Raising(),
        Everything(),
        Itself(),
        ENDLESS,
    ]
    + [
        mock.Mock(),
        mock.MagicMock(),
        Plain(usage="much"),
        Plain(usage=5),
        Plain(usage=[1, 2]),
        Plain(usage=lambda: CHAT),
    ]
    + [RaisingMapping(usage=CHAT), {"usage": None}, {"usage": {}}, {"usage": {"total_tokens": "7"}}, [1.0] * 5, [[0.5]]]
    + [{"usage": {"total_tokens": value}} for value in (-1, 1.5, True, 10**15, 10**30)]
    + [
        Plain(messages="text"),
        Plain(messages=[]),
        Plain(generations=5),
        Plain(llm_output="x"),
        {"messages": [None, "a"]},
    ],
    ids=lambda result: type(result).__name__,
)
def test_what_says_nothing_says_nothing(result: Any) -> None:
    assert usage_of(result) is None


def test_a_total_may_be_more_than_its_parts() -> None:
    assert usage_of({"usage": {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 30}}) == Usage(30, 5, 5)


def test_embeddings_are_not_searched() -> None:
    vectors = [[0.5] * 3_000 for _ in range(1_000)]
    began = time.thread_time()
    assert usage_of(vectors) is None
    assert time.thread_time() - began < 0.5  # three million numbers would take a second; this takes none


def test_usage_adds_up() -> None:
    assert Usage(5, 3, 2) + Usage(7, 4, 3) == Usage(12, 7, 5)
    assert Usage(5, 3, 2) + Usage(7) == Usage(12, None, None)
    with pytest.raises(TypeError):
        _ = Usage(5) + 3  # type: ignore[operator, unused-ignore]


def test_usage_of_a_stream_grows() -> None:
    assert Usage(26, 25, 1).grown_to(Usage(15, None, 15)) == Usage(40, 25, 15)
    assert Usage(25, 25, 0).grown_to(Usage(15, 0, 15)) == Usage(40, 25, 15)  # LangChain's chunks of Anthropic
    assert Usage(42, 30, 12).grown_to(Usage(42, 30, 12)) == Usage(42, 30, 12)
    assert Usage(30, 30).grown_to(Usage(50, 30, 20)) == Usage(50, 30, 20)
    assert Usage(7).grown_to(Usage(9)) == Usage(9)


@pytest.mark.parametrize(
    "result", [ANTHROPIC, GOOGLE, LANGCHAIN_MESSAGE, LLAMA_CHAT, AUTOGEN_RESULT, [AUTOGEN_MESSAGE]]
)
def test_results_settle_permits(result: Any) -> None:
    limiter = Limiter(tokens=lasting(100_000), input_tokens=lasting(100_000), output_tokens=lasting(100_000))
    expected = usage_of(result)
    assert limiter.limit(1_000, input_tokens=900, output_tokens=100)(lambda: result)() is result
    charged = Usage(*(spent(limiter, name) for name in ("tokens", "input_tokens", "output_tokens")))
    assert charged == expected
