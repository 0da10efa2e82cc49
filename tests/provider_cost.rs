//! What calls cost: from request bodies before, from reported usage after, as each provider counts.

use penstock::cost::Cost;
use penstock::provider::profile::bedrock_burndown;
use penstock::provider::{Call, Headers, Provider, Usage};
use serde_json::{Value, json};

/// One token per character, so that sums are easy to follow.
fn letters(text: &str) -> u64 {
    text.chars().count() as u64
}

fn call(path: &str, body: &Value) -> Call {
    Call::read(path, &serde_json::to_vec(body).unwrap(), &letters)
}

fn usage(body: &Value) -> Usage {
    Usage::read(&serde_json::to_vec(body).unwrap()).unwrap()
}

#[test]
fn chat_completions() {
    let call = call(
        "/v1/chat/completions",
        &json!({
            "model": "gpt-4o", "max_completion_tokens": 100, "n": 2, "stream": true, "temperature": 0.5,
            "messages": [
                {"role": "system", "content": "12345"},
                {"role": "user", "content": [
                    {"type": "text", "text": "1234567890"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAAAAAAAAAAAAAAAAAA"}},
                ]},
                {"role": "assistant", "tool_calls": [{"id": "call_1", "type": "function",
                    "function": {"name": "abc", "arguments": "{\"x\":\"\u{e9}\"}"}}]},
            ],
        }),
    );
    assert_eq!(call.model.as_deref(), Some("gpt-4o"));
    assert!(call.stream && call.generates);
    assert_eq!((call.input_tokens, call.max_output, call.choices), (5 + 10 + 3 + 9, Some(100), 2));
    let expect = |tokens, output_tokens| Cost { requests: 1, tokens, input_tokens: 27, output_tokens };
    // The larger of text and max_tokens, the sum, the text alone, and what is expected.
    assert_eq!(call.cost(Provider::OpenAi, None), expect(200, 200));
    assert_eq!(call.cost(Provider::AzureOpenAi, None), expect(227, 200));
    assert_eq!(call.cost(Provider::Gemini, Some(40)), expect(27, 80));
    assert_eq!(call.cost(Provider::Anthropic, Some(40)), expect(107, 80));
    // More than max_tokens is never expected.
    assert_eq!(call.cost(Provider::Mistral, Some(5_000)), expect(227, 200));
}

#[test]
fn tools_and_schemas_count_as_json() {
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    let call = call("/v1/responses", &json!({"input": "1234", "instructions": "12", "tools": tools}));
    assert_eq!(call.input_tokens, 6 + letters(&tools.to_string()));
}

#[test]
fn messages_of_anthropic() {
    let call = call(
        "/v1/messages",
        &json!({
            "model": "claude-sonnet-4-5", "max_tokens": 64_000,
            "system": [{"type": "text", "text": "123", "cache_control": {"type": "ephemeral"}}],
            "messages": [{"role": "user", "content": [
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "1234567"}},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAAAAAAAAAA"}},
                {"type": "tool_use", "id": "t", "name": "ab", "input": {"url": 1}},
                {"type": "tool_result", "tool_use_id": "t", "content": "12"},
            ]}],
        }),
    );
    assert_eq!(call.input_tokens, 3 + 7 + 2 + 9 + 2);
    // max_tokens reserves nothing.
    assert_eq!(call.cost(Provider::Anthropic, Some(300)).output_tokens, 300);
    assert_eq!(call.cost(Provider::Anthropic, Some(300)).tokens, 323);
}

#[test]
fn paths_tell_model_and_stream() {
    let body = json!({
        "contents": [{"role": "user", "parts": [{"text": "1234"}, {"inlineData": {"mimeType": "x", "data": "AAAA"}}]}],
        "systemInstruction": {"parts": [{"text": "12"}]},
        "generationConfig": {"maxOutputTokens": 50, "candidateCount": 3},
    });
    let gemini = call("/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", &body);
    assert_eq!(gemini.model.as_deref(), Some("gemini-2.5-flash"));
    assert!(gemini.stream);
    assert_eq!((gemini.input_tokens, gemini.max_output, gemini.choices), (6, Some(50), 3));

    let body = json!({
        "messages": [{"role": "user", "content": [{"text": "12345"}]}], "system": [{"text": "1"}],
        "inferenceConfig": {"maxTokens": 10},
    });
    let bedrock = call("/model/anthropic.claude-3-5-sonnet-20241022-v2%3A0/converse-stream", &body);
    assert_eq!(bedrock.model.as_deref(), Some("anthropic.claude-3-5-sonnet-20241022-v2:0"));
    assert!(bedrock.stream);
    assert_eq!(bedrock.cost(Provider::Bedrock, None).tokens, 16);

    let azure = call("/openai/deployments/my-gpt/chat/completions?api-version=1", &json!({"messages": []}));
    assert_eq!(azure.model.as_deref(), Some("my-gpt"));
}

/// Bedrock reserves the model's maximum when the request does not limit the output.
#[test]
fn an_absent_max_tokens_reserves_the_maximum_at_bedrock() {
    let call = call("/model/amazon.nova-pro-v1:0/converse", &json!({"messages": [{"content": [{"text": "12345"}]}]}));
    assert_eq!(call.model.as_deref(), Some("amazon.nova-pro-v1:0"));
    assert_eq!(call.cost(Provider::Bedrock, Some(10)).tokens, 64_005);
}

#[test]
fn embeddings_generate_nothing() {
    let call = call("/v1/embeddings", &json!({"model": "e", "input": ["123", "45"]}));
    assert_eq!(
        call.cost(Provider::Mistral, Some(9)),
        Cost { requests: 1, tokens: 5, input_tokens: 5, output_tokens: 0 }
    );
    let tokens = self::call("/v1/embeddings", &json!({"input": [[1, 2, 3], [4]]}));
    assert_eq!(tokens.input_tokens, 4);
}

#[test]
fn bodies_that_are_not_json_are_a_call_without_tokens() {
    for body in [&b""[..], b"--boundary\r\n", b"[1]", b"{", b"\xff\xfe", b"{\"messages\":"] {
        let call = Call::read("/v1/audio/transcriptions", body, &letters);
        assert_eq!((call.input_tokens, call.choices, call.model), (0, 1, None));
    }
    let ollama = call("/api/chat", &json!({"messages": [{"content": "12"}], "options": {"num_predict": -1}}));
    assert_eq!((ollama.input_tokens, ollama.max_output), (2, None));
}

#[test]
fn absurd_numbers_saturate() {
    let call = call("/v1/completions", &json!({"prompt": "1", "max_tokens": u64::MAX, "n": u64::MAX}));
    for provider in Provider::ALL {
        let cost = call.cost(provider, Some(u64::MAX));
        assert!(cost.output_tokens >= 1 && cost.tokens >= 1, "{provider:?}");
    }
    let deep = format!("{{\"messages\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let call = Call::read("/", deep.as_bytes(), &letters);
    assert!(call.input_tokens < 300_000);
}

#[test]
fn usage_in_every_provider_s_words() {
    let expected = |input, cache_read, cache_write, output| Usage { input, cache_read, cache_write, output };
    let openai = json!({"usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 60}}});
    let responses = json!({"type": "response.completed", "response": {"usage": {"input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 60}, "output_tokens": 20}}});
    assert_eq!(usage(&openai), expected(40, 60, 0, 20));
    assert_eq!(usage(&responses), expected(40, 60, 0, 20));
    let anthropic = json!({"usage": {"input_tokens": 40, "cache_read_input_tokens": 60,
        "cache_creation_input_tokens": 7, "output_tokens": 20}});
    assert_eq!(usage(&anthropic), expected(40, 60, 7, 20));
    let gemini = json!({"usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 20,
        "thoughtsTokenCount": 5, "cachedContentTokenCount": 60}});
    assert_eq!(usage(&gemini), expected(40, 60, 0, 25));
    let bedrock = json!({"usage": {"inputTokens": 40, "outputTokens": 20, "cacheReadInputTokens": 60}});
    assert_eq!(usage(&bedrock), expected(40, 60, 0, 20));
    let cohere = json!({"usage": {"billed_units": {"input_tokens": 40.0, "output_tokens": 20.0},
        "tokens": {"input_tokens": 90.0, "output_tokens": 25.0}}});
    assert_eq!(usage(&cohere), expected(40, 0, 0, 20));
    assert_eq!(usage(&json!({"meta": {"billed_units": {"input_tokens": 4}}})), expected(4, 0, 0, 0));
    assert_eq!(usage(&json!({"prompt_eval_count": 4, "eval_count": 3})), expected(4, 0, 0, 3));
    assert_eq!(
        usage(&json!({"x_groq": {"usage": {"prompt_tokens": 4, "completion_tokens": 3}}})),
        expected(4, 0, 0, 3)
    );
    let embeddings = json!({"data": [{"embedding": [0.1, 0.2]}], "usage": {"prompt_tokens": 8, "total_tokens": 8}});
    assert_eq!(usage(&embeddings), expected(8, 0, 0, 0));
    for nothing in [&b""[..], b"{}", b"{\"usage\":null}", b"{\"usage\":{\"input_tokens\":-1}}", b"[DONE]", b"\xff"] {
        assert_eq!(Usage::read(nothing), None);
    }
}

#[test]
fn usage_of_a_stream_is_merged() {
    let stream = "event: message_start\n\
        data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":25,\"cache_read_input_tokens\":5,\"output_tokens\":1}}}\n\n\
        event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"usage\"}}\n\n\
        event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":15}}\n\n";
    assert_eq!(Usage::read(stream.as_bytes()), Some(Usage { input: 25, cache_read: 5, cache_write: 0, output: 15 }));
    let stream = "data: {\"choices\":[],\"usage\":null}\n\ndata: {\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\ndata: [DONE]\n";
    assert_eq!(Usage::read(stream.as_bytes()), Some(Usage { input: 9, output: 2, ..Usage::default() }));
}

#[test]
fn usage_costs_what_each_provider_counts() {
    let usage = Usage { input: 40, cache_read: 60, cache_write: 7, output: 20 };
    let cost = |provider, model| {
        let cost = usage.cost(provider, model);
        (cost.tokens, cost.input_tokens, cost.output_tokens)
    };
    assert_eq!(cost(Provider::OpenAi, None), (127, 107, 20));
    assert_eq!(cost(Provider::Groq, None), (67, 47, 20), "cached tokens are free");
    assert_eq!(cost(Provider::Anthropic, Some("claude-sonnet-4-5")), (67, 47, 20), "cached tokens are free");
    assert_eq!(cost(Provider::Anthropic, Some("claude-3-5-haiku-latest")), (127, 107, 20), "but not there");
    assert_eq!(cost(Provider::Gemini, None), (107, 107, 20), "input only");
    assert_eq!(cost(Provider::LiteLlm, None), (127, 47, 20), "free as input, not in total");
    assert_eq!(cost(Provider::Bedrock, Some("amazon.nova-pro-v1:0")), (67, 47, 20));
    assert_eq!(cost(Provider::Bedrock, Some("anthropic.claude-opus-4-8-v1:0")), (47 + 300, 47, 20), "burndown");
    let most = Usage { input: u64::MAX, cache_read: u64::MAX, cache_write: u64::MAX, output: u64::MAX };
    assert_eq!(most.cost(Provider::Bedrock, Some("claude")).tokens, u64::MAX);
}

#[test]
fn burndown_by_model() {
    assert_eq!(bedrock_burndown("us.anthropic.claude-sonnet-4-5-20250929-v1:0"), 5);
    assert_eq!(bedrock_burndown("anthropic.claude-opus-5-5"), 10);
    assert_eq!(bedrock_burndown("anthropic.claude-sonnet-5"), 10);
    assert_eq!(bedrock_burndown("meta.llama3-70b-instruct-v1:0"), 1);
}

#[test]
fn bedrock_counts_in_headers() {
    let pairs: &[(&[u8], &[u8])] =
        &[(b"X-Amzn-Bedrock-Input-Token-Count", b"12"), (b"x-amzn-bedrock-output-token-count", b"3")];
    assert_eq!(Usage::from_headers(Headers::new(pairs)), Some(Usage { input: 12, output: 3, ..Usage::default() }));
    assert_eq!(Usage::from_headers(Headers::new(&[])), None);
}
