//! Usage, and errors, read from answers as they come: every form that a provider answers in, cut at every place.

#[path = "support/cases.rs"]
mod cases;

use std::fmt::Write as _;

use cases::cases;
use penstock::cost::Cost;
use penstock::estimate::estimate_tokens;
use penstock::provider::{Call, Headers, Kind, Provider, Usage, UsageReader, is_free, streaming};
use proptest::prelude::*;
use serde_json::{Value, json};

const JSON: &str = "application/json";
const SSE: &str = "text/event-stream; charset=utf-8";
const FRAMES: &str = "application/vnd.amazon.eventstream";

fn reader(provider: Provider, content_type: &str) -> UsageReader {
    UsageReader::new(provider, Some("claude-sonnet-4-5"), content_type, Headers::new(&[]))
}

/// Reads a body whole, byte by byte, and in pieces of a few sizes: it must not matter.
fn read(provider: Provider, content_type: &str, body: &[u8]) -> UsageReader {
    let mut whole = reader(provider, content_type);
    whole.feed(body, 0.0);
    for size in [1, 2, 3, 7, 64, 1_000] {
        let mut pieces = reader(provider, content_type);
        for piece in body.chunks(size) {
            pieces.feed(piece, 0.0);
        }
        let seen = |reader: &UsageReader| {
            (reader.usage(), reader.cost(), reader.estimate(), reader.error().map(|error| error.verdict.clone()))
        };
        assert_eq!(seen(&pieces), seen(&whole), "in pieces of {size}");
    }
    whole
}

fn sse(events: &[Value]) -> Vec<u8> {
    let mut body = String::new();
    for event in events {
        if let Some(kind) = event["type"].as_str() {
            writeln!(body, "event: {kind}").unwrap();
        }
        write!(body, "data: {event}\n\n").unwrap();
    }
    body.push_str("data: [DONE]\n\n");
    body.into_bytes()
}

/// A frame of AWS's event stream, its checksums left at zero.
fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(u8::try_from(name.len()).unwrap());
        block.extend_from_slice(name.as_bytes());
        block.push(7);
        block.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
        block.extend_from_slice(value.as_bytes());
    }
    let length = |length: usize| u32::try_from(length).unwrap().to_be_bytes();
    let mut frame = [length(16 + block.len() + payload.len()), length(block.len()), [0; 4]].concat();
    frame.extend_from_slice(&block);
    frame.extend_from_slice(payload);
    frame.extend_from_slice(&[0; 4]);
    frame
}

fn event(kind: &str, payload: &Value) -> Vec<u8> {
    let headers = [(":event-type", kind), (":content-type", JSON), (":message-type", "event")];
    frame(&headers, payload.to_string().as_bytes())
}

#[allow(clippy::unnecessary_wraps)] // it is compared with what a reader gives
fn used(input: u64, output: u64) -> Option<Usage> {
    Some(Usage { input, output, ..Usage::default() })
}

#[test]
fn json_of_chat_completions() {
    let body = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o-mini",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "It says \"usage\"."}}],
        "usage": {"prompt_tokens": 1_200, "completion_tokens": 30, "total_tokens": 1_230,
                  "prompt_tokens_details": {"cached_tokens": 1_000}},
    });
    let reader = read(Provider::OpenAi, JSON, &serde_json::to_vec_pretty(&body).unwrap());
    assert_eq!(reader.usage(), Some(Usage { input: 200, cache_read: 1_000, cache_write: 0, output: 30 }));
    assert_eq!(reader.cost(), Some(Cost { requests: 1, tokens: 1_230, input_tokens: 1_200, output_tokens: 30 }));
    assert_eq!(reader.estimate(), estimate_tokens("It says \"usage\"."));
    assert!(reader.error().is_none());
}

#[test]
fn a_stream_of_chat_completions_is_estimated_until_it_reports() {
    let delta = |text: &str| {
        json!({"id": "c", "object": "chat.completion.chunk", "usage": null,
               "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]})
    };
    let mut events = vec![delta("A pen"), delta("stock is a gate"), delta(" of a mill\u{1f3ed}.\n")];
    let without = read(Provider::OpenAi, SSE, &sse(&events));
    assert_eq!(
        (without.cost(), without.estimate()),
        (None, estimate_tokens("A penstock is a gate of a mill\u{1f3ed}.\n"))
    );
    events.push(json!({"id": "c", "choices": [], "usage": {"prompt_tokens": 8, "completion_tokens": 12}}));
    let with = read(Provider::OpenAi, SSE, &sse(&events));
    assert_eq!((with.usage(), with.estimate()), (used(8, 12), without.estimate()));
}

#[test]
fn arguments_of_tools_are_generated_text() {
    let events = [
        json!({"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "call_abc", "type": "function",
            "function": {"name": "weather", "arguments": "{\"place\": "}}]}}]}),
        json!({"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "\"Boston\"}"}}]}}]}),
    ];
    assert_eq!(read(Provider::Groq, SSE, &sse(&events)).estimate(), estimate_tokens("{\"place\": \"Boston\"}"));
}

/// The events that repeat what the deltas said do not count again.
#[test]
fn a_stream_of_responses() {
    let text = "The gate lets just as much through as the turbine can take.";
    let output = json!([{"type": "message", "content": [{"type": "output_text", "text": text}]}]);
    let events = [
        json!({"type": "response.created", "response": {"id": "resp_1", "status": "in_progress", "usage": null}}),
        json!({"type": "response.output_text.delta", "delta": "The gate lets just as much through"}),
        json!({"type": "response.output_text.delta", "delta": " as the turbine can take."}),
        json!({"type": "response.output_text.done", "text": text}),
        json!({"type": "response.content_part.done", "part": {"type": "output_text", "text": text}}),
        json!({"type": "response.output_item.done", "item": output[0]}),
        json!({"type": "response.completed", "response": {"id": "resp_1", "status": "completed", "output": output,
            "usage": {"input_tokens": 100, "input_tokens_details": {"cached_tokens": 64}, "output_tokens": 13,
                      "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 113}}}),
    ];
    let reader = read(Provider::OpenAi, SSE, &sse(&events));
    assert_eq!(reader.usage(), Some(Usage { input: 36, cache_read: 64, cache_write: 0, output: 13 }));
    assert_eq!(reader.estimate(), estimate_tokens(text));
    let whole = json!({"id": "resp_1", "object": "response", "output": output, "usage": {"input_tokens": 9, "output_tokens": 13}});
    let whole = read(Provider::OpenAi, JSON, &serde_json::to_vec(&whole).unwrap());
    assert_eq!((whole.usage(), whole.estimate()), (used(9, 13), estimate_tokens(text)));
}

#[test]
fn a_stream_of_anthropic_reports_in_two_parts() {
    let events = [
        json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "content": [],
            "usage": {"input_tokens": 25, "cache_creation_input_tokens": 100, "cache_read_input_tokens": 4_000,
                      "output_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "ping"}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " there"}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{\"a\": 1}"}}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 15}}),
        json!({"type": "message_stop"}),
    ];
    let reader = read(Provider::Anthropic, SSE, &sse(&events));
    // What came from the cache is free.
    assert_eq!(reader.cost(), Some(Cost { requests: 1, tokens: 140, input_tokens: 125, output_tokens: 15 }));
    assert_eq!(reader.estimate(), estimate_tokens("Hello there{\"a\": 1}"));
}

#[test]
fn gemini_streams_events_or_one_long_list() {
    let part = |text: &str, output: u64| {
        json!({"candidates": [{"content": {"parts": [{"text": text}], "role": "model"}}], "modelVersion": "gemini-2.5-flash",
               "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": output, "thoughtsTokenCount": 3,
                                 "totalTokenCount": 10 + output}})
    };
    let parts = [part("One", 1), part(" two", 2), part(" three", 5)];
    for (content_type, body) in [
        (SSE, sse(&parts)),
        (JSON, serde_json::to_vec_pretty(&parts).unwrap()),
        ("", serde_json::to_vec(&parts).unwrap()),
    ] {
        let reader = read(Provider::Gemini, content_type, &body);
        // Only the input counts.
        assert_eq!(reader.cost(), Some(Cost { requests: 1, tokens: 7, input_tokens: 7, output_tokens: 8 }));
        assert_eq!(reader.estimate(), estimate_tokens("One two three"));
    }
    let call = json!([{"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": {"type": "big", "n": 1}}}]}}]}]);
    assert_eq!(read(Provider::Gemini, JSON, &serde_json::to_vec(&call).unwrap()).estimate(), estimate_tokens("big"));
}

#[test]
fn mistral_says_what_it_charged() {
    let pairs: [(&[u8], &[u8]); 1] = [(b"x-ratelimit-tokens-query-cost", b"68")];
    let mut reader = UsageReader::new(Provider::Mistral, None, JSON, Headers::new(&pairs));
    assert_eq!(reader.cost(), Some(Cost { requests: 1, tokens: 68, ..Cost::default() }));
    reader.feed(br#"{"usage": {"prompt_tokens": 10, "completion_tokens": 50}}"#, 0.0);
    assert_eq!(reader.cost(), Some(Cost { requests: 1, tokens: 68, input_tokens: 10, output_tokens: 50 }));
}

#[test]
fn streams_of_mistral_and_of_cohere_old_and_new() {
    let mistral = [
        json!({"object": "chat.completion.chunk", "choices": [{"delta": {"role": "assistant", "content": "Bonjour"}}]}),
        json!({"choices": [{"delta": {"content": ""}, "finish_reason": "stop"}],
               "usage": {"prompt_tokens": 5, "total_tokens": 7, "completion_tokens": 2}}),
    ];
    let mistral = read(Provider::Mistral, SSE, &sse(&mistral));
    assert_eq!((mistral.usage(), mistral.estimate()), (used(5, 2), estimate_tokens("Bonjour")));
    let cohere = [
        json!({"type": "message-start", "id": "1", "delta": {"message": {"role": "assistant", "content": []}}}),
        json!({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Hello"}}}}),
        json!({"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": {
            "billed_units": {"input_tokens": 3, "output_tokens": 7.0}, "tokens": {"input_tokens": 69, "output_tokens": 9}}}}),
    ];
    let cohere = read(Provider::Cohere, SSE, &sse(&cohere));
    assert_eq!((cohere.usage(), cohere.estimate()), (used(3, 7), estimate_tokens("Hello")));
    let lines = [
        json!({"is_finished": false, "event_type": "text-generation", "text": "Hello"}),
        json!({"is_finished": true, "event_type": "stream-end", "response": {"text": "Hello", "meta": {
            "billed_units": {"input_tokens": 3, "output_tokens": 1}}}}),
    ];
    let lines =
        read(Provider::Cohere, "application/stream+json", lines.map(|line| line.to_string()).join("\n").as_bytes());
    assert_eq!((lines.usage(), lines.estimate()), (used(3, 1), estimate_tokens("Hello")));
}

#[test]
fn lines_of_ollama() {
    let lines = [
        json!({"model": "qwen3", "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", "content": "Hi"}, "done": false}),
        json!({"model": "qwen3", "message": {"role": "assistant", "content": " you"}, "done": false}),
        json!({"model": "qwen3", "message": {"role": "assistant", "content": ""}, "done": true, "done_reason": "stop",
               "total_duration": 4_883_583_458_u64, "prompt_eval_count": 26, "eval_count": 282}),
    ];
    let body = lines.map(|line| line.to_string()).join("\n");
    let reader = read(Provider::Ollama, "application/x-ndjson", body.as_bytes());
    assert_eq!((reader.usage(), reader.estimate()), (used(26, 282), estimate_tokens("Hi you")));
    let generate =
        b"{\"response\": \"Hi\", \"done\": false}\n{\"response\": \" you\", \"done\": true, \"eval_count\": 2}\n";
    let generate = read(Provider::Ollama, "application/x-ndjson", generate);
    assert_eq!((generate.usage(), generate.estimate()), (used(0, 2), estimate_tokens("Hi you")));
}

#[test]
fn bedrock_streams_frames() {
    let body = [
        event("messageStart", &json!({"p": "abcd", "role": "assistant"})),
        event(
            "contentBlockDelta",
            &json!({"contentBlockIndex": 0, "delta": {"text": "Hello"}, "p": "abcdefghijklmnop"}),
        ),
        event("contentBlockStop", &json!({"contentBlockIndex": 0, "p": "ab"})),
        event("messageStop", &json!({"p": "abcdefgh", "stopReason": "end_turn"})),
        event(
            "metadata",
            &json!({"metrics": {"latencyMs": 700}, "p": "abc",
            "usage": {"inputTokens": 11, "outputTokens": 20, "totalTokens": 31, "cacheReadInputTokens": 500}}),
        ),
    ];
    let reader = read(Provider::Bedrock, FRAMES, &body.concat());
    assert_eq!(reader.usage(), Some(Usage { input: 11, cache_read: 500, cache_write: 0, output: 20 }));
    // The output of Claude is multiplied, the cache is free.
    assert_eq!(reader.cost().map(|cost| cost.tokens), Some(11 + 5 * 20));
    assert_eq!(reader.estimate(), estimate_tokens("Hello"));
    // The form tells who it is.
    assert_eq!(self::reader(Provider::Unknown, FRAMES).provider(), Provider::Bedrock);
}

fn base64(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = String::new();
    for group in text.as_bytes().chunks(3) {
        let bits = group.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let shown = place <= group.len();
            encoded.push(if shown { char::from(ALPHABET[bits >> (18 - 6 * place) & 63]) } else { '=' });
        }
    }
    encoded
}

#[test]
fn bedrock_carries_the_models_own_events_in_base64() {
    let inner = [
        json!({"type": "message_start", "message": {"usage": {"input_tokens": 25, "output_tokens": 1}}}),
        json!({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hello \u{1f3ed} there"}}),
        json!({"type": "message_delta", "usage": {"output_tokens": 15}}),
        json!({"type": "message_stop",
               "amazon-bedrock-invocationMetrics": {"inputTokenCount": 25, "outputTokenCount": 16, "invocationLatency": 1}}),
    ];
    let chunk = |inner: &Value| event("chunk", &json!({"bytes": base64(&inner.to_string()), "p": "abcdef"}));
    let reader = read(Provider::Bedrock, FRAMES, &inner.iter().map(chunk).collect::<Vec<_>>().concat());
    assert_eq!((reader.usage(), reader.estimate()), (used(25, 16), estimate_tokens("Hello \u{1f3ed} there")));
}

#[test]
fn headers_of_bedrock_report_too() {
    let pairs: [(&[u8], &[u8]); 2] =
        [(b"X-Amzn-Bedrock-Input-Token-Count", b"12"), (b"X-Amzn-Bedrock-Output-Token-Count", b"34")];
    let reader = UsageReader::new(Provider::Bedrock, Some("amazon.nova-pro-v1:0"), JSON, Headers::new(&pairs));
    assert_eq!(reader.cost().map(|cost| cost.tokens), Some(46));
}

fn kind(reader: &UsageReader) -> Option<(Kind, bool)> {
    reader.error().map(|error| (error.verdict.kind, error.verdict.retryable))
}

#[test]
fn errors_inside_streams() {
    let overloaded = Some((Kind::Overloaded, true));
    let anthropic = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    assert_eq!(kind(&read(Provider::Anthropic, SSE, &sse(&[json!({"type": "ping"}), anthropic]))), overloaded);
    let failed = json!({"type": "response.failed", "response": {"status": "failed", "output": [],
        "error": {"code": "server_is_overloaded", "message": "Our servers are currently overloaded."}}});
    assert_eq!(kind(&read(Provider::OpenAi, SSE, &sse(&[failed]))), overloaded);
    let plain = json!({"type": "error", "code": "rate_limit_exceeded", "message": "Slow", "param": null});
    assert_eq!(kind(&read(Provider::OpenAi, SSE, &sse(&[plain]))), Some((Kind::Throttled, true)));
    // vLLM, OpenRouter: an error among the chunks; an object that calls itself one.
    let among = json!({"error": {"code": 502, "message": "Provider disconnected"}, "choices": []});
    assert_eq!(kind(&read(Provider::OpenRouter, SSE, &sse(&[among]))), Some((Kind::Transient, true)));
    let object = json!({"object": "error", "message": "boom", "type": "InternalServerError", "code": 500});
    assert_eq!(kind(&read(Provider::Vllm, SSE, &sse(&[object]))), Some((Kind::Transient, true)));
    assert_eq!(kind(&read(Provider::Unknown, SSE, b"event: error\ndata: it broke\n\n")), Some((Kind::Transient, true)));
    let lines = b"{\"response\": \"Hi\"}\n{\"error\": \"an error was encountered while running the model\"}\n";
    assert_eq!(kind(&read(Provider::Ollama, "application/x-ndjson", lines)), Some((Kind::Transient, true)));
    let gemini = json!([{"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}]);
    assert_eq!(kind(&read(Provider::Gemini, JSON, gemini.to_string().as_bytes())), overloaded);
    // No errors.
    let fine = json!({"id": "r", "status": "completed", "error": null, "incomplete_details": null, "output": []});
    assert_eq!(kind(&read(Provider::OpenAi, JSON, fine.to_string().as_bytes())), None);
    let says = json!({"choices": [{"delta": {"content": "{\"error\": {\"type\": \"overloaded_error\"}}"}}]});
    assert_eq!(kind(&read(Provider::OpenAi, SSE, &sse(&[says]))), None);
}

#[test]
fn exceptions_in_frames() {
    let exception = |name: &str| {
        let headers = [(":exception-type", name), (":content-type", JSON), (":message-type", "exception")];
        frame(&headers, br#"{"message": "Too many tokens, please wait before trying again."}"#)
    };
    let read = |name: &str| kind(&read(Provider::Bedrock, FRAMES, &exception(name)));
    assert_eq!(read("throttlingException"), Some((Kind::Throttled, true)));
    assert_eq!(read("modelStreamErrorException"), Some((Kind::Transient, true)));
    assert_eq!(read("internalServerException"), Some((Kind::Transient, true)));
    assert_eq!(read("serviceUnavailableException"), Some((Kind::Overloaded, true)));
    assert_eq!(read("validationException"), Some((Kind::Fatal, false)));
}

/// Pictures and embeddings by the megabyte pass without being kept.
#[test]
fn a_huge_document_is_passed_over() {
    let picture = "A".repeat(5_000_000);
    let body = json!({"created": 1, "data": [{"b64_json": picture}],
                      "usage": {"input_tokens": 50, "output_tokens": 4_160, "total_tokens": 4_210}});
    let reader = read(Provider::OpenAi, JSON, body.to_string().as_bytes());
    assert_eq!((reader.usage(), reader.estimate()), (used(50, 4_160), 0));
    let numbers: Vec<_> = (0..200_000).map(|n| f64::from(n) / 7.0).collect();
    let body = json!({"data": [{"object": "embedding", "embedding": numbers}], "usage": {"prompt_tokens": 8, "total_tokens": 8}});
    assert_eq!(read(Provider::OpenAi, JSON, body.to_string().as_bytes()).usage(), used(8, 0));
}

#[test]
fn what_is_no_text_is_not_looked_at() {
    let mut reader = reader(Provider::OpenAi, "audio/mpeg");
    reader.feed(br#"{"usage": {"prompt_tokens": 8}}"#, 0.0);
    assert_eq!((reader.cost(), reader.estimate()), (None, 0));
}

#[test]
fn comments_blank_lines_and_all_line_ends_are_understood() {
    for end in ["\n", "\r\n", "\r"] {
        let body = [
            ": OPENROUTER PROCESSING",
            "",
            ": keep-alive",
            "",
            "retry: 3000",
            "id: 7",
            "data: {\"usage\":",
            "data:{\"prompt_tokens\": 8, \"completion_tokens\": 1}}",
            "",
            "data: [DONE]",
            "",
            "",
        ];
        let reader = read(Provider::DeepSeek, SSE, body.join(end).as_bytes());
        assert_eq!(reader.usage(), used(8, 1), "{end:?}");
    }
}

#[test]
fn escapes_are_read_as_what_they_mean() {
    let body = br#"{"choices": [{"delta": {"content": "\u00e9t\u00E9 \ud83c\udfed\n\"x\" \\ \/"}}]}"#;
    assert_eq!(read(Provider::OpenAi, JSON, body).estimate(), estimate_tokens("\u{e9}t\u{e9} \u{1f3ed}\n\"x\" \\ /"));
}

/// A message of many pages, cut wherever, is still one error.
#[test]
fn a_long_error_is_cut_between_characters() {
    for text in ["\u{1f3ed}".repeat(5_000), "\"".repeat(5_000), format!("a{}", "\u{e9}".repeat(5_000))] {
        let escaped: String = text.encode_utf16().fold(String::new(), |mut text, unit| {
            write!(text, "\\u{unit:04x}").unwrap();
            text
        });
        for text in [serde_json::to_string(&text).unwrap(), format!("\"{escaped}\"")] {
            let body =
                format!("{{\"error\": {{\"type\": \"overloaded_error\", \"message\": {text}, \"code\": null}}}}");
            assert_eq!(kind(&read(Provider::Anthropic, JSON, body.as_bytes())), Some((Kind::Overloaded, true)));
        }
    }
}

#[test]
fn asking_for_usage_changes_nothing_else() {
    let ask = |provider, path: &str, body: &str| {
        streaming::ask_for_usage(provider, path, body.as_bytes()).map(|body| String::from_utf8(body).unwrap())
    };
    let chat = |body: &str| ask(Provider::OpenAi, "/v1/chat/completions", body);
    assert_eq!(
        chat(r#" { "model": "m", "stream": true, "x": 1.0 } "#).as_deref(),
        Some(r#" {"stream_options":{"include_usage":true}, "model": "m", "stream": true, "x": 1.0 } "#)
    );
    assert_eq!(
        chat(r#"{"stream":true,"stream_options":{"include_obfuscation":false}}"#).as_deref(),
        Some(r#"{"stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}}"#)
    );
    for options in ["null", "{}", "{ }"] {
        let body = format!(r#"{{"stream_options":{options},"stream":true}}"#);
        assert_eq!(chat(&body).as_deref(), Some(r#"{"stream_options":{"include_usage":true},"stream":true}"#));
    }
    assert_eq!(
        chat(r#"{"stream":true,"stream_options":{"include_usage": false}}"#).as_deref(),
        Some(r#"{"stream":true,"stream_options":{"include_usage": true}}"#)
    );
    for nothing in
        [r#"{"stream":true,"stream_options":{"include_usage":true}}"#, r#"{"stream":false}"#, "{}", "[", "", "[1]"]
    {
        assert_eq!(chat(nothing), None, "{nothing}");
    }
    let stream = r#"{"stream":true}"#;
    assert!(ask(Provider::Unknown, "/v1/completions?x=1", stream).is_some());
    for path in ["/v1/responses", "/v1/messages", "/api/chat", ""] {
        assert_eq!(ask(Provider::Unknown, path, stream), None, "{path}");
    }
    assert_eq!(ask(Provider::Mistral, "/v1/chat/completions", stream), None);
    let azure = |version: &str| {
        let path = format!("/openai/deployments/d/chat/completions?api-version={version}");
        ask(Provider::AzureOpenAi, &path, stream).is_some()
    };
    assert!(azure("2024-10-21") && azure("preview") && !azure("2024-06-01"));
}

#[test]
fn the_report_that_was_asked_for_is_taken_out_again() {
    let chunk =
        |text: &str| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}],\"usage\":null}}\n\n");
    let first = "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n";
    let report = "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":1}}\n\n";
    let large = chunk(&"x".repeat(200_000));
    let last = chunk("usage");
    let (kept, done) = ([first, &chunk("Hi"), ": keep-alive\n\n", &large, &last], "data: [DONE]\n\n");
    for end in ["\n", "\r\n"] {
        let whole = format!("{}{report}{done}", kept.concat()).replace('\n', end);
        let wanted = format!("{}{done}", kept.concat()).replace('\n', end);
        for size in [1, 2, 5, 100, 1_000_000] {
            let mut filter = streaming::UsageFilter::default();
            let mut out: Vec<u8> = whole.as_bytes().chunks(size).flat_map(|piece| filter.feed(piece)).collect();
            out.extend(filter.end());
            assert!(out == wanted.as_bytes(), "in pieces of {size}");
        }
    }
    // Events that are whole are not kept waiting.
    let mut filter = streaming::UsageFilter::default();
    assert_eq!(filter.feed(chunk("Hi").as_bytes()), chunk("Hi").as_bytes());
    assert_eq!(filter.feed(b"data: half"), b"");
    assert_eq!(filter.end(), b"data: half");
}

#[test]
fn requests_name_their_provider_by_host_or_path() {
    let of = Provider::of_request;
    assert_eq!(of("api.openai.com", "/v1/chat/completions"), Provider::OpenAi);
    assert_eq!(of("https://my.openai.azure.com:443/openai", ""), Provider::AzureOpenAi);
    assert_eq!(of("bedrock-runtime.us-east-1.amazonaws.com", "/openai/v1/chat/completions"), Provider::Bedrock);
    assert_eq!(of("127.0.0.1:8000", "/v1/chat/completions"), Provider::Unknown);
    assert_eq!(of("127.0.0.1:8000", "/v1/messages"), Provider::Anthropic);
    assert_eq!(of("127.0.0.1:8000", "/openai/deployments/gpt/chat/completions?api-version=1"), Provider::AzureOpenAi);
    assert_eq!(of("localhost", "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"), Provider::Gemini);
    assert_eq!(of("localhost", "/model/amazon.nova-pro-v1%3A0/converse-stream"), Provider::Bedrock);
    assert_eq!(of("localhost:11434", "/v1/chat/completions"), Provider::Ollama);
    assert_eq!(of("", ""), Provider::Unknown);
}

#[test]
fn what_costs_nothing_is_free() {
    for (method, path) in [
        ("GET", "/v1/models"),
        ("get", "/v1/batches/batch_1"),
        ("DELETE", "/v1/files/file-1"),
        ("POST", "/v1/files"),
        ("POST", "/v1/files?beta=true"),
        ("POST", "/upload/v1beta/files"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("POST", "/v1/messages/count_tokens"),
        ("POST", "/v1beta/models/gemini-2.5-flash:countTokens"),
        ("POST", "/api/show"),
    ] {
        assert!(is_free(method, path), "{method} {path}");
    }
    for path in [
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/embeddings",
        "/v1/batches",
        "/v1/messages/batches",
        "/v1/threads/thread_1/runs",
        "/v1beta/models/gemini-2.5-flash:generateContent",
        "/model/x/converse",
        "/api/chat",
        "/v1/images/generations",
        "/v1/audio/transcriptions",
        "/v1/moderations",
    ] {
        assert!(!is_free("POST", path), "{path}");
    }
}

#[test]
fn a_learnt_scale_corrects_the_input_alone() {
    let body = json!({"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "1234567890"}]});
    let call = Call::read("/v1/chat/completions", body.to_string().as_bytes(), &|text| text.len() as u64);
    assert_eq!((call.input_tokens, call.size), (10, 10));
    let cost = |provider, scale| call.cost_scaled(provider, Some(7), scale);
    assert_eq!(cost(Provider::AzureOpenAi, 1.5).tokens, 115);
    assert_eq!(cost(Provider::Mistral, 1.5), Cost { requests: 1, tokens: 22, input_tokens: 15, output_tokens: 7 });
    for none in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
        assert_eq!(cost(Provider::Mistral, none).input_tokens, 10);
    }
    // A batch takes nothing from the quotas of calls that are answered at once but the request.
    let batch = json!({"requests": [{"custom_id": "1", "params": {"messages": [{"content": "1234567890"}]}}]});
    let batch = Call::read("/v1/messages/batches", batch.to_string().as_bytes(), &|text| text.len() as u64);
    assert_eq!(batch.cost(Provider::Anthropic, Some(50)), Cost { requests: 1, ..Cost::default() });
}

#[test]
fn what_max_tokens_reserved_at_openai_is_not_given_back() {
    let body = json!({"max_completion_tokens": 1_000, "n": 2, "messages": [{"role": "user", "content": "Hi"}]});
    let call = Call::read("/v1/chat/completions", body.to_string().as_bytes(), &estimate_tokens);
    let used = |tokens| Cost { requests: 1, tokens, input_tokens: 10, output_tokens: tokens - 10 };
    assert_eq!(call.settled(Provider::OpenAi, &used(60)).tokens, 2_000);
    // What is generated is not counted beside what was reserved for it; a longer text is.
    assert_eq!(call.settled(Provider::OpenAi, &used(2_010)).tokens, 2_000);
    assert_eq!(call.settled(Provider::OpenAi, &Cost { input_tokens: 2_400, ..used(2_500) }).tokens, 2_400);
    assert_eq!(call.settled(Provider::AzureOpenAi, &used(60)), used(60));
    assert_eq!(call.settled(Provider::Anthropic, &used(60)), used(60));
}

#[test]
fn an_error_in_words_behind_a_broken_document_is_read_in_any_pieces() {
    let body = b"event: error\ndata: {\"usage\":]\"type\":\"error\"\n\n";
    let errors = [1, 3, body.len()].map(|cut| {
        let mut reader = reader(Provider::Bedrock, SSE);
        body.chunks(cut).for_each(|piece| reader.feed(piece, 0.0));
        reader.error().map(|reading| reading.verdict.kind)
    });
    assert!(errors[0].is_some() && errors.iter().all(|error| *error == errors[0]), "{errors:?}");
}

#[test]
fn white_space_before_an_answer_of_unknown_form_says_nothing() {
    let body = b"\n\n event: error\ndata: no room for this call\n\n";
    assert!(read(Provider::Bedrock, "", body).error().is_some());
}

proptest! {
    #![proptest_config(cases(if cfg!(debug_assertions) { 2_000 } else { 20_000 }))]

    /// Nothing panics, and where it is cut makes no difference.
    #[test]
    fn garbage_is_read_in_any_pieces(
        parts in prop::collection::vec(prop_oneof![
            Just("data: "), Just("\n\n"), Just("\r"), Just("event: error\n"), Just("{\"usage\":"), Just("{"), Just("}"),
            Just("["), Just("]"), Just("\"prompt_tokens\":3"), Just(","), Just("\"error\":"), Just("\"a\\u12"), Just("\""),
            Just("\\ud83c"), Just("\\"), Just("null"), Just("\"type\":\"error\""), Just("\"text\":\"x\u{1f3ed}"), Just(":"),
            Just("\"bytes\":\"eyJ1c2FnZSI6"), Just("1e9"), Just(" "),
        ], 0..60),
        raw in prop::collection::vec(any::<u8>(), 0..40),
        cut in 1_usize..9,
        form in prop_oneof![Just(JSON), Just(SSE), Just(FRAMES), Just("")],
    ) {
        let mut body = parts.concat().into_bytes();
        body.extend(raw);
        if form == FRAMES {
            body = [frame(&[(":message-type", "event")], &body), body].concat();
        }
        let mut whole = reader(Provider::Bedrock, form);
        whole.feed(&body, 0.0);
        let mut pieces = reader(Provider::Bedrock, form);
        let mut filter = streaming::UsageFilter::default();
        let mut passed = Vec::new();
        for piece in body.chunks(cut) {
            pieces.feed(piece, 0.0);
            passed.extend(filter.feed(piece));
        }
        passed.extend(filter.end());
        prop_assert_eq!(pieces.usage(), whole.usage());
        prop_assert_eq!(pieces.estimate(), whole.estimate());
        prop_assert_eq!(pieces.error().is_some(), whole.error().is_some());
        prop_assert!(passed.len() <= body.len());
    }
}
