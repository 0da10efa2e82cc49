//! The error in a response body, wherever a provider puts it.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::Value;

use super::names::Provider;
use super::when;

/// Larger bodies are not parsed; their beginning is read as prose. Error bodies are smaller than this by far.
const LARGEST_JSON: usize = 32 * 1024;
/// How much of a message is read.
const LONGEST_MESSAGE: usize = 2 * 1024;
/// How much is looked at, at both ends of a successful body, for an error in it.
const EDGE: usize = 8 * 1024;

/// The error object of a body: codes before prose.
#[derive(Debug, Default)]
pub(crate) struct ErrorBody<'v> {
    /// `code`, `type`, `status`, `details.error_code` and the like, the most specific first.
    pub codes: Vec<&'v str>,
    /// For people.
    pub message: Cow<'v, str>,
    /// The HTTP status that the body itself carries.
    pub status: Option<u16>,
    /// Google's `QuotaFailure.violations`.
    pub violations: Vec<Violation<'v>>,
    /// Google's `RetryInfo.retryDelay`.
    pub retry_delay: Option<Duration>,
    /// Google's details were there, whatever they say.
    pub has_details: bool,
    /// Headers that are in the body only (`OpenRouter`).
    pub headers: Vec<(&'v str, Cow<'v, str>)>,
    /// What the upstream said, word for word (`OpenRouter`).
    pub raw: Option<&'v str>,
    /// `OpenRouter`'s `limit_source`: whose capacity was short, when it was not the caller's.
    pub limit_source: Option<&'v str>,
    /// Whose error this looks like.
    pub shape: Provider,
}

/// One violated quota at Google.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Violation<'v> {
    pub metric: &'v str,
    pub id: &'v str,
    pub value: Option<u64>,
}

/// Parses a body: JSON, or the error event of a stream.
pub(crate) fn parse(body: &[u8]) -> Option<Value> {
    let body = body.trim_ascii();
    let whole = match body.first()? {
        b'{' | b'[' | b'"' if body.len() <= LARGEST_JSON => serde_json::from_slice(body).ok(),
        _ => None,
    };
    whole.or_else(|| edges(body).find_map(event_error))
}

/// The error that a successful response carries in its body: an error event of a stream, or an `error` in JSON.
pub(crate) fn parse_success(body: &[u8]) -> Option<Value> {
    let body = body.trim_ascii();
    if !edges(body).any(names_error) {
        return None;
    }
    parse(body).filter(is_error)
}

/// The beginning and, if it is not the same, the end.
fn edges(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let head = body.get(..EDGE).unwrap_or(body);
    let tail = if body.len() > EDGE { body.get(body.len().saturating_sub(EDGE).max(EDGE)..) } else { None };
    [Some(head), tail].into_iter().flatten()
}

/// Every provider's error, whole or as an event, has this in it.
fn names_error(text: &[u8]) -> bool {
    text.utf8_chunks().any(|chunk| chunk.valid().contains("\"error\""))
}

/// The first error among server-sent events, or among lines of JSON (Ollama).
fn event_error(part: &[u8]) -> Option<Value> {
    let mut expected = false;
    for line in part.split(|b| *b == b'\n') {
        let line = line.trim_ascii_end();
        if let Some(event) = line.strip_prefix(b"event:") {
            expected = matches!(event.trim_ascii(), b"error" | b"response.failed");
        } else if let Some(data) = line.strip_prefix(b"data:").or(line.starts_with(b"{").then_some(line))
            && (expected || names_error(data))
            && let Ok(value) = serde_json::from_slice::<Value>(data)
            && (expected || is_error(&value))
        {
            return Some(value);
        }
    }
    None
}

fn is_error(value: &Value) -> bool {
    let given = |error: &Value| error.is_object() || error.as_str().is_some_and(|text| !text.is_empty());
    match value {
        Value::Array(items) => items.first().is_some_and(is_error),
        Value::Object(_) => {
            value.get("error").is_some_and(given)
                || value.pointer("/response/error").is_some_and(given)
                || value.get("type").and_then(Value::as_str) == Some("error")
        }
        _ => false,
    }
}

impl<'v> ErrorBody<'v> {
    /// Finds the error in a parsed body.
    pub(crate) fn find(root: &'v Value) -> Self {
        let mut found = Self { shape: shape(root), ..Self::default() };
        found.read(root, 0);
        found
    }

    /// The beginning of a body that is not JSON.
    pub(crate) fn text(body: &[u8]) -> Self {
        let prefix = body.get(..LONGEST_MESSAGE).unwrap_or(body);
        ErrorBody { message: Cow::Owned(String::from_utf8_lossy(prefix).into_owned()), ..ErrorBody::default() }
    }

    /// JSON inside the message, as proxies wrap what their upstream said.
    pub(crate) fn embedded(&self) -> Option<Value> {
        let text = self.raw.unwrap_or(&self.message);
        let text = text.get(text.find('{')?..)?;
        serde_json::Deserializer::from_str(text).into_iter::<Value>().next()?.ok().filter(Value::is_object)
    }

    /// Takes over what an embedded error says in addition.
    pub(crate) fn absorb(&mut self, inner: ErrorBody<'v>) {
        self.codes.extend(inner.codes);
        if !inner.message.is_empty() {
            self.message = inner.message;
        }
        self.violations.extend(inner.violations);
        self.retry_delay = self.retry_delay.or(inner.retry_delay);
        self.has_details |= inner.has_details;
        self.headers.extend(inner.headers);
        self.status = self.status.or(inner.status);
    }

    fn read(&mut self, value: &'v Value, depth: u8) {
        if depth > 3 {
            return;
        }
        match value {
            Value::String(text) => self.take_message(text),
            Value::Array(items) => {
                if let Some(first) = items.first() {
                    self.read(first, depth + 1);
                }
            }
            Value::Object(_) => {
                let inner = ["error", "response", "detail", "errors"].into_iter().find_map(|name| {
                    value.get(name).filter(|inner| inner.is_object() || inner.is_array() || inner.is_string())
                });
                // `response` is looked into only for its error; a plain `detail` beside an error is not one.
                if let Some(inner) = inner {
                    self.read(inner, depth + 1);
                }
                self.take_codes(value);
                self.take_details(value);
                if let Some(message) = text(value, "message").or_else(|| text(value, "Message")) {
                    self.take_message(message);
                }
            }
            _ => {}
        }
    }

    fn take_message(&mut self, message: &'v str) {
        if self.message.is_empty() {
            self.message = Cow::Borrowed(prefix(message, LONGEST_MESSAGE));
        }
    }

    fn take_codes(&mut self, object: &'v Value) {
        for name in ["code", "type", "status", "__type", "error_code", "reason"] {
            match object.get(name) {
                Some(Value::String(code)) => {
                    let code = super::headers::error_type(code.as_bytes()).unwrap_or(code);
                    self.codes.push(prefix(code, 128));
                }
                Some(Value::Number(code)) => {
                    let status = code.as_u64().and_then(|n| u16::try_from(n).ok());
                    self.status = self.status.or(status.filter(|s| (400..600).contains(s)));
                }
                _ => {}
            }
        }
        if let Some(code) = object.pointer("/details/error_code").and_then(Value::as_str) {
            self.codes.push(prefix(code, 128));
        }
    }

    fn take_details(&mut self, object: &'v Value) {
        if let Some(details) = object.get("details").and_then(Value::as_array) {
            self.has_details |= !details.is_empty();
            for detail in details.iter().take(16) {
                self.take_detail(detail);
            }
        }
        if let Some(metadata) = object.get("metadata") {
            if let Some(headers) = metadata.get("headers").and_then(Value::as_object) {
                self.headers.extend(headers.iter().take(16).filter_map(|(name, value)| {
                    let value = match value {
                        Value::String(text) => Cow::Borrowed(text.as_str()),
                        Value::Number(number) => Cow::Owned(number.to_string()),
                        _ => return None,
                    };
                    Some((name.as_str(), value))
                }));
            }
            self.limit_source = self.limit_source.or_else(|| text(metadata, "limit_source"));
            self.raw = self.raw.or_else(|| text(metadata, "raw")).filter(|raw| raw.len() <= LARGEST_JSON);
        }
        self.limit_source = self.limit_source.or_else(|| text(object, "limit_source"));
    }

    fn take_detail(&mut self, detail: &'v Value) {
        let kind = text(detail, "@type").unwrap_or_default();
        if kind.ends_with("RetryInfo") {
            self.retry_delay = self.retry_delay.or_else(|| detail.get("retryDelay").and_then(protobuf_duration));
        } else if kind.ends_with("QuotaFailure") {
            let violations = detail.get("violations").and_then(Value::as_array);
            self.violations.extend(violations.into_iter().flatten().take(16).map(|violation| Violation {
                metric: text(violation, "quotaMetric").unwrap_or_default(),
                id: text(violation, "quotaId").unwrap_or_default(),
                value: text(violation, "quotaValue").and_then(|value| when::count(value.as_bytes())),
            }));
        }
    }
}

fn text<'v>(object: &'v Value, name: &str) -> Option<&'v str> {
    object.get(name).and_then(Value::as_str)
}

/// `"37s"`, `"34.074824224s"`, `"900ms"` or `{"seconds": 37, "nanos": 0}`.
fn protobuf_duration(value: &Value) -> Option<Duration> {
    match value {
        Value::String(text) => when::go_duration(text.as_bytes()),
        Value::Object(parts) => {
            let number = |name: &str| match parts.get(name) {
                Some(Value::Number(number)) => number.as_u64(),
                Some(Value::String(text)) => text.parse().ok(),
                _ => None,
            };
            let nanos = number("nanos").and_then(|n| u32::try_from(n).ok()).filter(|n| *n < 1_000_000_000);
            (number("seconds").is_some() || nanos.is_some())
                .then(|| Duration::new(number("seconds").unwrap_or(0), nanos.unwrap_or(0)))
        }
        _ => None,
    }
}

/// Whose error objects look like this.
fn shape(root: &Value) -> Provider {
    let root = root.as_array().and_then(|items| items.first()).unwrap_or(root);
    let error = root.get("error");
    let error_has = |name: &str| error.and_then(|e| e.get(name));
    if text(root, "type") == Some("error") && error_has("type").is_some() && error_has("code").is_none() {
        Provider::Anthropic
    } else if error_has("status").is_some_and(Value::is_string) && error_has("code").is_some_and(Value::is_number) {
        Provider::Gemini
    } else if error_has("metadata").is_some() && error_has("code").is_some_and(Value::is_number) {
        Provider::OpenRouter
    } else if text(root, "object") == Some("error") && text(root, "code").is_some() {
        Provider::Mistral
    } else {
        Provider::Unknown
    }
}

/// At most `length` bytes from the start, whole characters only.
pub(crate) fn prefix(text: &str, length: usize) -> &str {
    if text.len() <= length {
        return text;
    }
    (0..=length).rev().find_map(|end| text.get(..end)).unwrap_or_default()
}
