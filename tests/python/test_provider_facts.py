"""What the compiled core knows of calls and answers: as the gate at the HTTP boundary asks it."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from penstock import Limiter, _core, estimate_tokens

CHAT = "/v1/chat/completions"


def body(**more: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello there"}], **more}).encode()


def answer(prompt: int, completion: int, provider: str = "openai") -> _core.UsageReader:
    reader = _core.UsageReader(provider, "m", "application/json", {})
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    reader.feed(json.dumps({"choices": [], "usage": usage}).encode())
    return reader


def test_a_call_is_read_and_costed() -> None:
    call = _core.read_call(CHAT, body(max_tokens=100, n=2, stream=True))
    assert (call.model, call.stream, call.generates, call.choices, call.max_output) == ("m", True, True, 2, 100)
    assert (call.input_tokens, call.size) == (estimate_tokens("Hello there"), len("Hello there"))
    assert call.cost("openai").tokens == 200
    assert call.cost("azure_openai").tokens == 200 + call.input_tokens
    assert call.cost("anthropic", 30).tokens == 60 + call.input_tokens
    assert call.cost("anthropic", expected_output=30, scale=2.0).input_tokens == 2 * call.input_tokens
    assert call.settled("openai", call.cost("anthropic", 5)).tokens == 200
    assert "m" in repr(call) and "streamed" in repr(call)


@pytest.mark.parametrize("nothing", [b"", b"\x00\xff", b"[1, 2]", b'"text"', b"{"])
def test_what_is_no_request_is_a_call_without_tokens(nothing: bytes) -> None:
    call = _core.read_call("/somewhere", nothing)
    assert (call.model, call.input_tokens, call.stream) == (None, 0, False)
    assert call.cost("openai", 0).requests == 1


def test_arguments_that_cannot_be_are_named() -> None:
    call = _core.read_call(CHAT, body())
    with pytest.raises(ValueError, match=r"provider must be one of openai, .*, not .acme."):
        call.cost("acme")
    with pytest.raises(ValueError, match=r"expected_output must be a whole number from 0 to .*, not -1"):
        call.cost("openai", -1)
    with pytest.raises(ValueError, match="not .acme."):
        _core.UsageReader("acme")
    with pytest.raises(ValueError, match="not .acme."):
        _core.ask_for_usage("acme", CHAT, b"{}")
    with pytest.raises(TypeError, match="headers must be"):
        _core.UsageReader("openai", None, "", 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not .acme."):
        Limiter().expect("m", "acme")


def test_requests_are_told_apart() -> None:
    assert _core.provider_of("api.anthropic.com") == "anthropic"
    assert _core.provider_of("127.0.0.1:8080", "/v1/messages") == "anthropic"
    assert _core.provider_of("127.0.0.1:8080", CHAT) == "unknown"
    assert _core.is_free("GET", "/v1/models") and not _core.is_free("POST", CHAT)


def test_usage_is_read_as_it_comes() -> None:
    reader = _core.UsageReader("openai", "m", "text/event-stream", [(b"x-request-id", b"1")])
    assert (reader.cost(), reader.estimate(), reader.verdict(), reader.provider) == (None, 0, None, "openai")
    reader.feed(b'data: {"choices": [{"delta": {"content": "Hello th')
    reader.feed(b'ere"}}]}\n\ndata: {"choices": [], "usage": {"prompt_tokens": 9,')
    assert (reader.cost(), reader.estimate()) == (None, estimate_tokens("Hello there"))
    reader.feed(b'"completion_tokens": 3}}\n\ndata: [DONE]\n\n')
    cost = reader.cost()
    assert cost is not None
    assert (cost.requests, cost.tokens, cost.input_tokens, cost.output_tokens) == (1, 12, 9, 3)


def test_an_error_inside_a_stream_is_a_verdict() -> None:
    reader = _core.UsageReader("anthropic", "m", "text/event-stream", {})
    reader.feed(b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n')
    verdict = reader.verdict()
    assert verdict is not None
    assert (verdict.kind, verdict.retryable, verdict.provider) == ("overloaded", True, "anthropic")


def test_a_rate_limit_inside_a_stream_is_no_spend_cap() -> None:
    """Anthropic marks a spend cap by leaving ``retry-after`` out; but a stream's headers are older than its error."""
    reader = _core.UsageReader("anthropic", "m", "text/event-stream", {})
    reader.feed(b'event: error\ndata: {"type":"error","error":{"type":"rate_limit_error","message":"Slow"}}\n\n')
    verdict = reader.verdict()
    assert verdict is not None
    assert (verdict.kind, verdict.retryable) == ("throttled", True)


def test_what_was_asked_for_in_vain_is_taken_out() -> None:
    asked = _core.ask_for_usage("openai", CHAT, body(stream=True))
    assert asked is not None
    assert json.loads(asked)["stream_options"] == {"include_usage": True}
    assert _core.ask_for_usage("openai", CHAT, asked) is None
    filtered = _core.UsageFilter()
    report = b'data: {"choices": [], "usage": {"prompt_tokens": 9}}\n\n'
    other = b'data: {"choices": [{}]}\n\n'
    assert filtered.feed(other + report + b"data: [DO") + filtered.feed(b"NE]\n\n") + filtered.end() == (
        other + b"data: [DONE]\n\n"
    )


def test_a_limiter_learns_what_models_take() -> None:
    limiter = Limiter(tokens=1_000)
    call = _core.read_call(CHAT, body())
    assert limiter.expect("m") == (1.0, None)
    for output in range(1, 101):
        limiter.learn(call, answer(call.input_tokens * 2, output))
    scale, usual = limiter.expect("m", "openai")
    assert 1.5 < scale <= 2.0 and usual == 69  # of the last 64
    assert limiter.expect("m", "anthropic") == (scale, 97)
    assert limiter.expect("another") == limiter.expect(None) == (1.0, None)
    assert Limiter().expect("m") == (1.0, None)
    limiter.learn(call, _core.UsageReader("openai"))  # nothing was reported
    assert limiter.expect("m")[0] == scale


def test_a_reader_may_be_fed_from_any_thread() -> None:
    reader = _core.UsageReader("openai", None, "text/event-stream")

    def feed() -> None:
        for _ in range(500):
            reader.feed(b'data: {"usage": {"prompt_tokens": 9, "completion_tokens": 1}}\n\n')
            reader.cost()

    threads = [threading.Thread(target=feed) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reader.cost() is not None
