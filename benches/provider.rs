//! What it takes to read an answer, and to count a call.

use divan::Bencher;
use penstock::provider::{Call, Headers, Provider, Reader, Usage};

fn main() {
    divan::main();
}

/// 2026-01-15T12:00:00Z.
const NOW: f64 = 1_768_478_400.0;

type Pair = (&'static [u8], &'static [u8]);

const OPENAI_OK: &[Pair] = &[
    (b"Date", b"Sun, 16 Nov 2025 13:05:04 GMT"),
    (b"Content-Type", b"application/json"),
    (b"Transfer-Encoding", b"chunked"),
    (b"Connection", b"keep-alive"),
    (b"access-control-expose-headers", b"X-Request-ID"),
    (b"openai-organization", b"org-x"),
    (b"openai-processing-ms", b"531"),
    (b"openai-version", b"2020-10-01"),
    (b"x-ratelimit-limit-requests", b"5000"),
    (b"x-ratelimit-limit-tokens", b"800000"),
    (b"x-ratelimit-remaining-requests", b"4999"),
    (b"x-ratelimit-remaining-tokens", b"799986"),
    (b"x-ratelimit-reset-requests", b"12ms"),
    (b"x-ratelimit-reset-tokens", b"1ms"),
    (b"x-request-id", b"req_0123456789abcdef"),
    (b"strict-transport-security", b"max-age=31536000; includeSubDomains; preload"),
    (b"cf-cache-status", b"DYNAMIC"),
    (b"Set-Cookie", b"__cf_bm=x; path=/; expires=Sun, 16-Nov-25 13:35:04 GMT"),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Server", b"cloudflare"),
    (b"CF-RAY", b"0123456789abcdef-FRA"),
    (b"alt-svc", b"h3=\":443\"; ma=86400"),
];

const ANTHROPIC_OK: &[Pair] = &[
    (b"date", b"Thu, 21 Aug 2025 12:41:00 GMT"),
    (b"anthropic-ratelimit-input-tokens-limit", b"80000"),
    (b"anthropic-ratelimit-input-tokens-remaining", b"80000"),
    (b"anthropic-ratelimit-input-tokens-reset", b"2025-08-21T12:40:59Z"),
    (b"anthropic-ratelimit-output-tokens-limit", b"16000"),
    (b"anthropic-ratelimit-output-tokens-remaining", b"16000"),
    (b"anthropic-ratelimit-output-tokens-reset", b"2025-08-21T12:41:00Z"),
    (b"anthropic-ratelimit-requests-limit", b"1000"),
    (b"anthropic-ratelimit-requests-remaining", b"999"),
    (b"anthropic-ratelimit-requests-reset", b"2025-08-21T12:40:59Z"),
    (b"anthropic-ratelimit-tokens-limit", b"96000"),
    (b"anthropic-ratelimit-tokens-remaining", b"96000"),
    (b"anthropic-ratelimit-tokens-reset", b"2025-08-21T12:40:59Z"),
];

const OPENAI_429: &[u8] = br#"{"error":{"message":"Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Used 30000, Requested 890. Please try again in 1.78s. Visit https://platform.openai.com/account/rate-limits to learn more.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#;

const GEMINI_429: &[u8] = br#"{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details. For more information on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits.","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaMetric":"generativelanguage.googleapis.com/generate_content_free_tier_requests","quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier","quotaDimensions":{"location":"global","model":"gemini-3-flash"},"quotaValue":"20"}]},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"1s"}]}}"#;

const COMPLETION: &[u8] = br#"{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant","content":"Hello! How can I help you today?"},"finish_reason":"stop"}],"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":0}}}"#;

#[divan::bench]
fn success_openai(bencher: Bencher<'_, '_>) {
    let reader = Reader::new(Provider::OpenAi);
    bencher.bench(|| reader.read(200, Headers::new(divan::black_box(OPENAI_OK)), b"", NOW));
}

#[divan::bench]
fn success_openai_with_body(bencher: Bencher<'_, '_>) {
    let reader = Reader::new(Provider::OpenAi);
    bencher.bench(|| reader.read(200, Headers::new(divan::black_box(OPENAI_OK)), COMPLETION, NOW));
}

#[divan::bench]
fn success_anthropic(bencher: Bencher<'_, '_>) {
    let reader = Reader::new(Provider::Anthropic);
    bencher.bench(|| reader.read(200, Headers::new(divan::black_box(ANTHROPIC_OK)), b"", NOW));
}

#[divan::bench]
fn refusal_openai(bencher: Bencher<'_, '_>) {
    let reader = Reader::new(Provider::OpenAi);
    bencher.bench(|| reader.read(429, Headers::new(OPENAI_OK), divan::black_box(OPENAI_429), NOW));
}

#[divan::bench]
fn refusal_gemini_per_day(bencher: Bencher<'_, '_>) {
    let reader = Reader::new(Provider::Gemini);
    bencher.bench(|| reader.read(429, Headers::new(&[]), divan::black_box(GEMINI_429), NOW));
}

/// A chat of 10 messages of 2 kB each; the estimate itself is left out.
#[divan::bench]
fn call_of_20_kb(bencher: Bencher<'_, '_>) {
    let message = format!(r#"{{"role":"user","content":"{}"}}"#, "All work and no play. ".repeat(93));
    let body = format!(r#"{{"model":"gpt-4o","max_tokens":100,"messages":[{}]}}"#, vec![message; 10].join(","));
    bencher.bench(|| Call::read("/v1/chat/completions", divan::black_box(body.as_bytes()), &|text| text.len() as u64));
}

#[divan::bench]
fn usage_of_a_completion(bencher: Bencher<'_, '_>) {
    bencher.bench(|| Usage::read(divan::black_box(COMPLETION)));
}
