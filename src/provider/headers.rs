//! A view of response headers, and the one pass over them that finds all that matters.

use std::time::Duration;

use super::limits::{Field, Series};
use super::names::{Provider, TELLTALES};
use super::when::{self, EpochNanos, When};

/// No header that matters has a longer name; longer ones are not looked at.
const LONGEST_NAME: usize = 64;
/// More headers than any server sends. What comes after them is not looked at.
const MOST_HEADERS: usize = 256;

/// Response headers, borrowed: names in any case, values as raw bytes, in the order received.
///
/// [`Headers::unseen`] is for errors that carry none, as most SDK exceptions made from streams do. That the server sent
/// no `retry-after` must not be concluded from them (Anthropic marks a spend cap that way).
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    pairs: &'a [(&'a [u8], &'a [u8])],
    seen: bool,
}

impl<'a> Headers<'a> {
    /// The headers of a response.
    pub const fn new(pairs: &'a [(&'a [u8], &'a [u8])]) -> Self {
        Self { pairs, seen: true }
    }

    /// The headers are not known.
    pub const fn unseen() -> Self {
        Self { pairs: &[], seen: false }
    }

    /// All headers.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        self.pairs.iter().copied()
    }

    /// The first value of a header, by name in any case.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.pairs.iter().find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| *value)
    }

    /// Reads all headers once. The first usable value of a repeated header counts. An unknown provider is looked for.
    pub(crate) fn scan(&self, provider: Provider) -> Scan<'a> {
        let mut scan = Scan { seen: self.seen, provider, ..Scan::default() };
        let mut buffer = [0_u8; LONGEST_NAME];
        for (name, value) in self.pairs.iter().take(MOST_HEADERS) {
            if let Some(lower) = buffer.get_mut(..name.len()) {
                lower.copy_from_slice(name);
                lower.make_ascii_lowercase();
                scan.take(lower, value);
            }
        }
        scan
    }
}

/// What one pass over the headers found.
#[derive(Debug, Default)]
pub(crate) struct Scan<'a> {
    /// Whether there were headers to look at.
    pub seen: bool,
    /// Whose headers these are: as given, else as they say.
    pub provider: Provider,
    /// The server's clock: when the answer was made.
    pub date: Option<EpochNanos>,
    /// `retry-after`.
    pub retry_after: Option<When>,
    /// `retry-after-ms` and AWS's `x-amz-retry-after`: milliseconds both.
    pub retry_after_ms: Option<Duration>,
    /// `x-should-retry`: the server's own decision.
    pub should_retry: Option<bool>,
    /// `x-amzn-errortype`, without the address after the colon.
    pub error_type: Option<&'a str>,
    /// `x-ratelimit-type` (Azure) or `rate_limit_type` (`LiteLLM`): what was short.
    pub short_of: Option<&'a [u8]>,
    /// `reset_at` (`LiteLLM`).
    pub reset_at: Option<When>,
    /// `x-ratelimit-over-limit: yes` (Fireworks): at or above the account's share, served or not.
    pub over_limit: bool,
    /// `x-ratelimit-tokens-query-cost` (Mistral): tokens that this call was charged.
    pub query_cost: Option<u64>,
    /// `anthropic-ratelimit-unified-*-reset`: when a subscription's allowance is renewed; the latest of several.
    pub unified_reset: Option<EpochNanos>,
    /// Quotas, one entry per counter.
    pub series: Vec<Series<'a>>,
}

impl<'a> Scan<'a> {
    fn take(&mut self, name: &[u8], value: &'a [u8]) {
        if self.provider == Provider::Unknown
            && let Some((_, provider)) = TELLTALES.iter().find(|(start, _)| name.starts_with(start))
        {
            self.provider = *provider;
        }
        match name {
            b"date" => self.date = self.date.or_else(|| when::date(value)),
            b"retry-after" => self.retry_after = self.retry_after.or_else(|| When::parse(value)),
            b"retry-after-ms" | b"x-amz-retry-after" => {
                self.retry_after_ms = self.retry_after_ms.or_else(|| when::millis(value));
            }
            b"x-should-retry" => self.should_retry = self.should_retry.or_else(|| boolean(value)),
            b"x-amzn-errortype" => self.error_type = self.error_type.or_else(|| error_type(value)),
            b"x-ratelimit-type" | b"rate_limit_type" => self.short_of = self.short_of.or(Some(value)),
            b"reset_at" => self.reset_at = self.reset_at.or_else(|| When::parse(value)),
            b"x-ratelimit-over-limit" => self.over_limit |= boolean(value) == Some(true),
            b"x-ratelimit-tokens-query-cost" => self.query_cost = self.query_cost.or_else(|| when::count(value)),
            _ => self.take_quota(name, value),
        }
    }

    fn take_quota(&mut self, name: &[u8], value: &'a [u8]) {
        if let Some(rest) = name.strip_prefix(b"anthropic-ratelimit-unified-") {
            if rest.ends_with(b"reset")
                && let Some(When::At(at)) = When::parse(value)
            {
                self.unified_reset = self.unified_reset.max(Some(at));
            }
        } else if let Some((field, counter, scope)) = Field::of(name) {
            let position = self.series.iter().position(|s| s.counter == counter && s.scope == scope);
            let index = position.unwrap_or_else(|| {
                self.series.push(Series::new(counter, scope));
                self.series.len() - 1
            });
            if let Some(series) = self.series.get_mut(index) {
                series.take(field, value);
            }
        }
    }
}

fn boolean(value: &[u8]) -> Option<bool> {
    let value = value.trim_ascii();
    let is = |word: &str| value.eq_ignore_ascii_case(word.as_bytes());
    if is("true") || is("yes") {
        Some(true)
    } else if is("false") || is("no") {
        Some(false)
    } else {
        None
    }
}

/// `ThrottlingException:http://internal.amazon.com/coral/...` or `com.amazon.bedrock#ThrottlingException`.
pub(crate) fn error_type(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    let name = text.split(':').next().unwrap_or(text);
    Some(name.rsplit('#').next().unwrap_or(name).trim()).filter(|name| !name.is_empty())
}
