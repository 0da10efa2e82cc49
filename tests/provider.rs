//! What providers say: every recorded sample, the decision table row by row, and properties that hold for any input.

#[path = "support/cases.rs"]
mod cases;
mod corpus;

use std::time::Duration;

use cases::cases;
use corpus::Sample;
use penstock::cost::Dimension;
use penstock::provider::limits::solve_window;
use penstock::provider::when::{When, go_duration};
use penstock::provider::{Headers, Kind, Limit, Provider, Reader, Reading, read};
use proptest::prelude::*;
use serde_json::{Value, json};

/// 2026-01-15T12:00:00Z.
const NOW: f64 = 1_768_478_400.0;

fn respond(provider: Provider, status: u16, headers: &[(&str, &str)], body: &str) -> Reading {
    let pairs: Vec<_> = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    read(provider, status, Headers::new(&pairs), body.as_bytes(), NOW)
}

fn millis(duration: Option<Duration>) -> Value {
    duration.map_or(Value::Null, |d| json!(d.as_secs_f64() * 1e3))
}

fn seconds(duration: Option<Duration>) -> Value {
    duration.map_or(Value::Null, |d| json!(d.as_secs()))
}

fn close(actual: &Value, expected: &Value, within: f64) -> bool {
    match (actual.as_f64(), expected.as_f64()) {
        (Some(actual), Some(expected)) => (actual - expected).abs() <= within,
        (actual, expected) => actual == expected,
    }
}

/// What differs between a reading and what is expected of it, as text.
fn differences(reading: &Reading, expect: &Value) -> Vec<String> {
    let verdict = &reading.verdict;
    let limits: Vec<Value> = reading.limits.iter().map(limit_as_json).collect();
    let actual = json!({
        "kind": verdict.kind.name(),
        "wait_ms": millis(verdict.wait),
        "dimension": verdict.dimension.map(Dimension::name),
        "retryable": verdict.retryable,
        "resets_at": verdict.resets_at,
        "window_s": seconds(verdict.window),
        "requested": verdict.requested,
        "code": verdict.code,
        "resolved": reading.provider.name(),
        "charged_tokens": reading.charged_tokens,
        "over_limit": reading.over_limit,
    });
    let mut differences = Vec::new();
    for (name, expected) in expect.as_object().unwrap() {
        let same = match name.as_str() {
            "limits" => same_limits(&limits, expected.as_array().unwrap()),
            "wait_ms" => close(&actual[name], expected, 0.000_5),
            "resets_at" => close(&actual[name], expected, 0.001),
            _ => {
                assert!(actual.get(name).is_some(), "no such expectation: {name}");
                &actual[name] == expected
            }
        };
        if !same {
            let actual = if name == "limits" { json!(limits) } else { actual[name].clone() };
            differences.push(format!("{name}: expected {expected}, got {actual}"));
        }
    }
    differences
}

fn limit_as_json(limit: &Limit) -> Value {
    let mut value = json!({
        "dimension": limit.dimension.name(),
        "name": limit.name,
        "limit": limit.limit,
        "remaining": limit.remaining,
        "window_s": seconds(limit.window),
        "resets_in_ms": millis(limit.resets_in),
    });
    if !limit.scope.is_empty() {
        value["scope"] = json!(limit.scope);
    }
    value
}

/// The same limits, in any order.
fn same_limits(actual: &[Value], expected: &[Value]) -> bool {
    let same = |a: &Value, e: &Value| {
        let (a, e) = (a.as_object().unwrap(), e.as_object().unwrap());
        a.len() == e.len()
            && e.iter().all(|(name, value)| {
                if name == "resets_in_ms" { close(&a[name], value, 0.000_5) } else { a.get(name) == Some(value) }
            })
    };
    actual.len() == expected.len() && expected.iter().all(|e| actual.iter().any(|a| same(a, e)))
}

#[test]
fn every_sample_means_what_it_should() {
    let mut wrong = Vec::new();
    for sample in Sample::all() {
        for difference in differences(&sample.read(), &sample.expect) {
            wrong.push(format!("{} ({}; {}): {difference}", sample.name, sample.about, sample.source));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A sample whose headers are in other cases, padded and in reverse order means the same.
#[test]
fn case_order_and_padding_of_headers_do_not_matter() {
    for mut sample in Sample::all() {
        sample.headers.reverse();
        for (name, value) in &mut sample.headers {
            *name = name.to_ascii_uppercase();
            *value = format!("  {value}\t");
        }
        let differences = differences(&sample.read(), &sample.expect);
        assert!(differences.is_empty(), "{}: {}", sample.name, differences.join("; "));
    }
}

/// The decision table, row by row; each row says what the provider sends, what it means and whether to try again.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn decision_table() {
    use Kind::{Fatal, Ok, Overloaded, Oversize, QuotaExhausted, Throttled, Transient};
    use Provider::{Anthropic, Bedrock, Cohere, Fireworks, Gemini, Groq, Mistral, Ollama, OpenAi, OpenRouter, Vertex};
    type Row<'a> = (&'a str, Provider, u16, &'a [(&'a str, &'a str)], &'a str, Kind, bool);
    let rows: &[Row<'_>] = &[
        (
            "numbers in words",
            OpenAi,
            429,
            &[],
            r#"{"error":{"message":"on tokens per min (TPM): Limit 10, Used 9, Requested 4."}}"#,
            Throttled,
            true,
        ),
        ("retry-after", OpenAi, 429, &[("retry-after", "3")], "", Throttled, true),
        (
            "requested above limit, 429",
            Groq,
            429,
            &[],
            r#"{"error":{"message":"(TPM): Limit 10, Used 0, Requested 40."}}"#,
            Oversize,
            false,
        ),
        (
            "requested above limit, 413",
            Groq,
            413,
            &[],
            r#"{"error":{"message":"(TPM): Limit 10, Requested 40","code":"rate_limit_exceeded"}}"#,
            Oversize,
            false,
        ),
        (
            "requested above a day's limit",
            Groq,
            429,
            &[],
            r#"{"error":{"message":"(TPD): Limit 10, Requested 40."}}"#,
            Oversize,
            false,
        ),
        (
            "a wrong request, quoted",
            Anthropic,
            400,
            &[],
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"bad: concurrent connections"}}"#,
            Fatal,
            false,
        ),
        (
            "too large in words",
            OpenAi,
            429,
            &[],
            r#"{"error":{"message":"Request too large for gpt-4o"}}"#,
            Oversize,
            false,
        ),
        (
            "insufficient_quota",
            OpenAi,
            429,
            &[("retry-after", "1")],
            r#"{"error":{"type":"insufficient_quota"}}"#,
            QuotaExhausted,
            false,
        ),
        (
            "credit_balance_exhausted",
            OpenAi,
            429,
            &[],
            r#"{"error":{"code":"credit_balance_exhausted"}}"#,
            QuotaExhausted,
            false,
        ),
        (
            "spend limit",
            OpenAi,
            429,
            &[],
            r#"{"error":{"code":"project_spend_limit_exceeded"}}"#,
            QuotaExhausted,
            false,
        ),
        (
            "prepayment",
            Gemini,
            429,
            &[],
            r#"{"error":{"message":"Your prepayment credits are depleted."}}"#,
            QuotaExhausted,
            false,
        ),
        (
            "no retry-after",
            Anthropic,
            429,
            &[],
            r#"{"type":"error","error":{"type":"rate_limit_error","message":"?"}}"#,
            QuotaExhausted,
            false,
        ),
        (
            "enforced spend limit",
            Anthropic,
            429,
            &[("retry-after", "9")],
            r#"{"type":"error","error":{"type":"rate_limit_error","details":{"error_code":"enforced_spend_limit_reached"}}}"#,
            QuotaExhausted,
            false,
        ),
        ("402", OpenRouter, 402, &[], "", QuotaExhausted, false),
        (
            "PerDay",
            Gemini,
            429,
            &[],
            r#"{"error":{"status":"RESOURCE_EXHAUSTED","details":[{"@type":"google.rpc.QuotaFailure","violations":[{"quotaId":"RequestsPerDay"}]},{"@type":"google.rpc.RetryInfo","retryDelay":"1s"}]}}"#,
            QuotaExhausted,
            false,
        ),
        ("per month", Cohere, 429, &[], r#"{"message":"limited to 1000 API calls / month."}"#, QuotaExhausted, false),
        (
            "per day",
            OpenRouter,
            429,
            &[],
            r#"{"error":{"message":"Rate limit exceeded: free-models-per-day.","code":429,"metadata":{}}}"#,
            QuotaExhausted,
            false,
        ),
        (
            "a day's limit, hours away",
            Groq,
            429,
            &[],
            r#"{"error":{"message":"(TPD): Limit 100, Used 100, Requested 10."}}"#,
            QuotaExhausted,
            false,
        ),
        (
            "a day's limit, soon",
            Groq,
            429,
            &[],
            r#"{"error":{"message":"(TPD): Limit 100000, Used 100000, Requested 10."}}"#,
            Throttled,
            true,
        ),
        ("slow_down", OpenAi, 429, &[], r#"{"error":{"code":"slow_down"}}"#, Overloaded, true),
        (
            "acceleration",
            Anthropic,
            429,
            &[("retry-after", "2")],
            r#"{"type":"error","error":{"type":"rate_limit_error","message":"acceleration limit"}}"#,
            Overloaded,
            true,
        ),
        ("shared pool", Vertex, 429, &[], r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}"#, Overloaded, true),
        ("over limit", Fireworks, 429, &[("x-ratelimit-over-limit", "yes")], "", Overloaded, true),
        ("3505", Mistral, 429, &[], r#"{"object":"error","code":"3505"}"#, Overloaded, true),
        ("server_is_overloaded", OpenAi, 503, &[], r#"{"error":{"code":"server_is_overloaded"}}"#, Overloaded, true),
        ("529", Anthropic, 529, &[], "", Overloaded, true),
        ("503", Gemini, 503, &[], "", Overloaded, true),
        ("503 as text", Ollama, 503, &[], "server busy", Overloaded, true),
        ("408", OpenAi, 408, &[], "", Transient, true),
        ("409", OpenAi, 409, &[], "", Transient, true),
        ("500", OpenAi, 500, &[], "", Transient, true),
        ("502", OpenAi, 502, &[], "", Transient, true),
        ("504", OpenAi, 504, &[], "", Transient, true),
        ("no response", OpenAi, 0, &[], "", Transient, true),
        (
            "error event",
            Anthropic,
            200,
            &[],
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n",
            Overloaded,
            true,
        ),
        ("x-should-retry: false", OpenAi, 429, &[("x-should-retry", "false")], "", Throttled, false),
        ("x-should-retry: true", OpenAi, 404, &[("x-should-retry", "true")], "", Fatal, true),
        (
            "too many tokens, please wait",
            Bedrock,
            429,
            &[],
            r#"{"message":"Too many tokens, please wait before trying again."}"#,
            Throttled,
            true,
        ),
        ("400", OpenAi, 400, &[], "", Fatal, false),
        ("401", OpenAi, 401, &[], "", Fatal, false),
        (
            "200",
            OpenAi,
            200,
            &[],
            r#"{"choices":[{"message":{"content":"an \"error\" in text"}}],"error":null}"#,
            Ok,
            false,
        ),
    ];
    for (row, provider, status, headers, body, kind, retryable) in rows {
        let verdict = respond(*provider, *status, headers, body).verdict;
        assert_eq!((verdict.kind, verdict.retryable), (*kind, *retryable), "{row}: {verdict:?}");
    }
}

/// Headers that an exception did not carry prove nothing about `retry-after`.
#[test]
fn a_spend_cap_is_not_concluded_from_unseen_headers() {
    let body = br#"{"type":"error","error":{"type":"rate_limit_error","message":"?"}}"#;
    let kind = |headers| read(Provider::Anthropic, 429, headers, body, NOW).verdict.kind;
    assert_eq!(kind(Headers::new(&[])), Kind::QuotaExhausted);
    assert_eq!(kind(Headers::unseen()), Kind::Throttled);
}

#[test]
fn waits_are_cut_off_but_resets_are_not() {
    let reader = Reader { max_wait: Duration::from_secs(30), ..Reader::new(Provider::OpenAi) };
    let pairs: &[(&[u8], &[u8])] = &[(b"retry-after", b"100")];
    let verdict = reader.read(429, Headers::new(pairs), b"", NOW).verdict;
    assert_eq!((verdict.kind, verdict.wait), (Kind::Throttled, Some(Duration::from_secs(30))));
    assert_eq!(verdict.resets_at, Some(NOW + 100.0));
    let hasty = Reader { patience: Duration::from_secs(99), ..reader };
    assert_eq!(hasty.read(429, Headers::new(pairs), b"", NOW).verdict.kind, Kind::QuotaExhausted);
}

/// Without any clock, absolute times are unknown rather than wrong.
#[test]
fn absolute_times_need_a_clock() {
    let pairs: &[(&[u8], &[u8])] = &[(b"retry-after", b"Sun, 27 Sep 2026 12:30:00 GMT")];
    for now in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
        let verdict = read(Provider::OpenAi, 429, Headers::new(pairs), b"", now).verdict;
        assert_eq!((verdict.kind, verdict.wait, verdict.resets_at), (Kind::Throttled, None, None));
    }
}

#[test]
fn an_event_of_a_stream_is_read_alone() {
    let reader = Reader::new(Provider::OpenAi);
    let event = br#"{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"Please try again in 1.5s."}}}"#;
    let verdict = reader.read_event(Headers::new(&[]), event, NOW).unwrap().verdict;
    assert_eq!((verdict.kind, verdict.wait), (Kind::Throttled, Some(Duration::from_millis(1_500))));
    let delta = br#"{"choices":[{"delta":{"content":"\"error\""}}]}"#;
    assert!(reader.read_event(Headers::new(&[]), delta, NOW).is_none());
    assert!(reader.read_event(Headers::new(&[]), b"[DONE]", NOW).is_none());
}

#[test]
fn providers_are_known_by_address() {
    for (address, provider) in [
        ("https://api.openai.com/v1/chat/completions", Provider::OpenAi),
        ("https://mine.openai.azure.com/openai/deployments/x", Provider::AzureOpenAi),
        ("https://models.github.ai/inference", Provider::AzureOpenAi),
        ("API.ANTHROPIC.COM", Provider::Anthropic),
        ("generativelanguage.googleapis.com:443", Provider::Gemini),
        ("https://us-central1-aiplatform.googleapis.com/v1", Provider::Vertex),
        ("https://aiplatform.googleapis.com/v1", Provider::Vertex),
        ("https://bedrock-runtime.eu-west-1.amazonaws.com/model/x/converse", Provider::Bedrock),
        ("https://bedrock-mantle.us-east-1.api.aws/v1", Provider::Bedrock),
        ("https://s3.amazonaws.com", Provider::Unknown),
        ("https://codestral.mistral.ai/v1", Provider::Mistral),
        ("https://api.groq.com/openai/v1", Provider::Groq),
        ("https://user:secret@openrouter.ai:443/api?x=1", Provider::OpenRouter),
        ("http://localhost:11434", Provider::Ollama),
        ("http://localhost:8000/v1", Provider::Unknown),
        ("http://[::1]:11434/api", Provider::Ollama),
        ("https://notopenrouter.ai", Provider::Unknown),
        ("my-anthropic.com", Provider::Unknown),
        ("", Provider::Unknown),
    ] {
        assert_eq!(Provider::from_host(address), provider, "{address}");
    }
    for provider in Provider::ALL {
        assert_eq!(Provider::from_name(provider.name()), Some(provider));
        assert_eq!(provider.profile().provider, provider);
    }
    assert_eq!(Provider::from_name("aws.bedrock"), Some(Provider::Bedrock));
    assert_eq!(Provider::from_name("nobody"), None);
}

#[test]
fn providers_are_known_by_headers_that_only_they_send() {
    for (name, provider) in [
        ("Anthropic-RateLimit-Requests-Limit", Provider::Anthropic),
        ("x-ratelimit-renewalperiod-tokens", Provider::AzureOpenAi),
        ("x-ratelimit-remaining-req-minute", Provider::Mistral),
        ("x-amzn-ErrorType", Provider::Bedrock),
        ("x-litellm-call-id", Provider::LiteLlm),
        ("x-tokenlimit-limit", Provider::Together),
        ("openai-processing-ms", Provider::OpenAi),
        ("x-ratelimit-limit-requests", Provider::Unknown),
    ] {
        let pairs: &[(&[u8], &[u8])] = &[(b"date", b""), (name.as_bytes(), b"1")];
        assert_eq!(Provider::from_headers(Headers::new(pairs)), provider, "{name}");
    }
}

#[test]
fn times_are_told_apart_by_their_form() {
    let after = |nanos| Some(When::After(Duration::from_nanos(nanos)));
    let at = |nanos| Some(When::At(nanos));
    for (value, expected) in [
        ("12ms", after(12_000_000)),
        ("6m0s", after(360_000_000_000)),
        ("172.799999ms", after(172_799_999)),
        ("6h37m31.152s", after(23_851_152_000_000)),
        ("1.5\u{b5}s", after(1_500)),
        ("7.66", after(7_660_000_000)),
        ("0", after(0)),
        (" 20 ", after(20_000_000_000)),
        ("1788220800000", at(1_788_220_800_000_000_000)),
        ("1765944000", at(1_765_944_000_000_000_000)),
        ("2025-08-21T12:40:59Z", at(1_755_780_059_000_000_000)),
        ("2025-08-21T14:40:59.5+02:00", at(1_755_780_059_500_000_000)),
        ("2026-01-01 00:00:00 UTC", at(1_767_225_600_000_000_000)),
        ("Sun, 27 Sep 2026 12:30:00 GMT", at(1_790_512_200_000_000_000)),
        ("", None),
        ("-1", None),
        ("-5s", None),
        ("NaN", None),
        ("inf", None),
        ("1e9", None),
        ("s", None),
        ("12", after(12_000_000_000)),
        ("12ms3", None),
        (".", None),
        ("99999999999999999999", None),
        ("999999999999999999999999999999999", None),
        ("18446744073709551615h", None),
    ] {
        assert_eq!(When::parse(value.as_bytes()), expected, "{value:?}");
    }
}

#[test]
fn windows_are_solved_only_from_numbers_that_fit() {
    let solve = |limit, remaining, micros| solve_window(limit, remaining, Duration::from_micros(micros));
    assert_eq!(solve(5_000, 4_999, 12_000), Some(Duration::from_secs(60)));
    assert_eq!(solve(500_000, 499_999, 172_799), Some(Duration::from_secs(86_400)));
    assert_eq!(solve(100, 100, 5_000), None, "nothing used");
    assert_eq!(solve(100, 200, 5_000), None, "more left than there is");
    assert_eq!(solve(100, 50, 7_000_000), None, "no usual window");
    assert_eq!(solve(0, 0, 5_000), None);
    assert_eq!(solve(u64::MAX, 0, 60_000_000), Some(Duration::from_secs(60)));
}

/// A Go duration as Go prints it.
fn print_go(nanos: u64) -> String {
    let (seconds, part) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let fraction = if part == 0 { String::new() } else { format!(".{part:09}").trim_end_matches('0').to_owned() };
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}h{minutes}m{seconds}{fraction}s")
    } else if minutes > 0 {
        format!("{minutes}m{seconds}{fraction}s")
    } else {
        format!("{seconds}{fraction}s")
    }
}

#[test]
fn whole_minutes_survive_printing() {
    let nanos = 119_876_460_000_000_000;
    assert_eq!(go_duration(print_go(nanos).as_bytes()), Some(Duration::from_nanos(nanos)));
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn go_durations_survive_printing(nanos in any::<u64>()) {
        let printed = print_go(nanos);
        prop_assert_eq!(go_duration(printed.as_bytes()), Some(Duration::from_nanos(nanos)), "{}", printed);
    }

    #[test]
    fn bare_seconds_are_exact(millis in 0_u64..1_000_000_000_000) {
        let printed = format!("{}.{:03}", millis / 1000, millis % 1000);
        prop_assert_eq!(When::parse(printed.as_bytes()), Some(When::After(Duration::from_millis(millis))));
    }

    #[test]
    fn a_time_is_the_same_in_all_forms(seconds in 1_000_000_000_u64..253_402_300_799, offset in -86_000_i32..86_000) {
        let expected = Some(When::At(i128::from(seconds) * 1_000_000_000));
        let timestamp = jiff::Timestamp::from_second(i64::try_from(seconds).unwrap()).unwrap();
        let http = httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs(seconds));
        let offset = jiff::tz::Offset::from_seconds(offset / 60 * 60).unwrap();
        let mut forms = vec![http, timestamp.to_string(), timestamp.display_with_offset(offset).to_string()];
        forms.push(timestamp.strftime("%Y-%m-%d %H:%M:%S UTC").to_string());
        forms.push(seconds.to_string());
        forms.push((seconds * 1000).to_string());
        for form in &forms {
            prop_assert_eq!(When::parse(form.as_bytes()), expected, "{}", form);
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm(value in proptest::collection::vec(any::<u8>(), 0..40), now in any::<i64>()) {
        if let Some(when) = When::parse(&value) {
            prop_assert!(when.from(Some(i128::from(now))).is_some());
        }
    }

    /// The formula of the messages holds for any numbers, to the nanosecond.
    #[test]
    fn waits_follow_from_the_numbers(limit in 1_u64..10_000_000, used in 0_u64..20_000_000, percent in 0_u64..=100) {
        let requested = limit * percent / 100;
        let body = format!("on tokens per min (TPM): Limit {limit}, Used {used}, Requested {requested}.");
        let reader = Reader { max_wait: Duration::MAX, ..Reader::new(Provider::Unknown) };
        let wait = reader.read(429, Headers::new(&[]), body.as_bytes(), NOW).verdict.wait.unwrap().as_nanos();
        let (limit, missing) = (u128::from(limit), u128::from((used + requested).saturating_sub(limit)));
        let error = (missing * 60_000_000_000).abs_diff(wait * limit);
        prop_assert!(error < limit, "{} {}", wait, error);
    }

    #[test]
    fn windows_are_found_again(limit in 1_u64..10_000_000, percent in 10_u64..=100, which in 0_usize..3) {
        let window = [60_u64, 3_600, 86_400][which];
        let used = (limit * percent / 100).max(1);
        let reset = Duration::from_millis(used * window * 1000 / limit);
        prop_assert_eq!(solve_window(limit, limit - used, reset), Some(Duration::from_secs(window)));
    }
}
