//! What a response means, and whether trying again can help.

use std::time::Duration;

use super::body::{ErrorBody, Violation, prefix};
use super::headers::Scan;
use super::limits::{DAY, Limit, MONTH, merge};
use super::names::Provider;
use super::prose::Prose;
use super::rules::{self, DAILY_QUOTA_IDS};
use super::when::{EpochNanos, When, between, next_midnight_pacific};
use crate::cost::Dimension;

/// What kind of answer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Served.
    Ok,
    /// Refused now because a limit is used up; there is room again after the wait.
    Throttled,
    /// The provider is short of capacity, or the ramp was too steep: send less.
    Overloaded,
    /// A failure that says nothing about load.
    Transient,
    /// Larger than the limit itself. No wait helps.
    Oversize,
    /// The account is empty, or a quota is spent for so long that waiting is no answer.
    QuotaExhausted,
    /// The request is wrong.
    Fatal,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Ok,
        Self::Throttled,
        Self::Overloaded,
        Self::Transient,
        Self::Oversize,
        Self::QuotaExhausted,
        Self::Fatal,
    ];

    /// The name used in code, docs and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Throttled => "throttled",
            Self::Overloaded => "overloaded",
            Self::Transient => "transient",
            Self::Oversize => "oversize",
            Self::QuotaExhausted => "quota_exhausted",
            Self::Fatal => "fatal",
        }
    }

    /// Whether trying again can help, if the server does not say otherwise.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Throttled | Self::Overloaded | Self::Transient)
    }
}

/// What a response means.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What kind of answer it is.
    pub kind: Kind,
    /// How long the provider said to wait (or what follows from its numbers), at most the reader's `max_wait`. `None`:
    /// it did not say. Trying earlier will fail.
    pub wait: Option<Duration>,
    /// What was short, where that is known.
    pub dimension: Option<Dimension>,
    /// The period of the quota that was short, where that is known.
    pub window: Option<Duration>,
    /// Whether trying again can help. `x-should-retry` is obeyed, but never makes a spent quota or a request that is
    /// too large retryable.
    pub retryable: bool,
    /// When there is room again, in seconds since the Unix epoch on the caller's clock; not cut off at `max_wait`.
    pub resets_at: Option<f64>,
    /// What the call would have used of [`Verdict::dimension`], by the provider's own count.
    pub requested: Option<u64>,
    /// The provider's code; of several, the one that decided.
    pub code: Option<String>,
    /// The provider's message, shortened.
    pub detail: Option<String>,
}

impl Verdict {
    /// Served.
    pub(crate) const fn ok() -> Self {
        Self {
            kind: Kind::Ok,
            wait: None,
            dimension: None,
            window: None,
            retryable: false,
            resets_at: None,
            requested: None,
            code: None,
            detail: None,
        }
    }
}

/// How much of a message a verdict keeps.
const LONGEST_DETAIL: usize = 500;
/// A whole-second `retry-after` is the exact wait, rounded up.
const ROUNDED_UP: Duration = Duration::from_secs(1);
/// Google's own gemini-cli takes a `retryDelay` above this as final.
pub const LONGEST_GOOGLE_DELAY: Duration = Duration::from_secs(300);

/// All that is known about one refusal.
pub(crate) struct Evidence<'a> {
    pub provider: Provider,
    pub status: u16,
    pub scan: &'a Scan<'a>,
    /// The headers that are in the body only.
    pub inner: &'a Scan<'a>,
    pub error: &'a ErrorBody<'a>,
    /// The message, in lower case.
    pub message: &'a str,
    pub prose: Prose,
    pub server_now: Option<EpochNanos>,
    pub caller_now: Option<EpochNanos>,
}

impl Evidence<'_> {
    /// Weighs it all. Waits above `patience` make a throttle a spent quota; waits are cut off at `max_wait`.
    pub(crate) fn verdict(&self, max_wait: Duration, patience: Duration) -> Verdict {
        let mut kind = self.kind();
        let wait = self.wait(kind);
        if kind == Kind::Throttled && wait.is_some_and(|wait| wait > patience) {
            kind = Kind::QuotaExhausted;
        }
        let resets_in = wait.or_else(|| self.resets_in(kind));
        let mut dimension = self.dimension();
        if !matches!(kind, Kind::Throttled | Kind::Overloaded | Kind::Oversize | Kind::QuotaExhausted) {
            dimension = None;
        }
        let retryable = match self.scan.should_retry {
            Some(true) => !matches!(kind, Kind::Oversize | Kind::QuotaExhausted),
            Some(false) => false,
            None => kind.is_retryable(),
        };
        Verdict {
            kind,
            wait: wait.map(|wait| wait.min(max_wait)),
            dimension,
            window: dimension.and_then(|dimension| self.window(dimension)),
            retryable,
            resets_at: resets_in.and_then(|wait| self.caller_time(wait)),
            requested: self.prose.requested.filter(|_| dimension.is_some()),
            code: self.code().map(str::to_owned),
            detail: Some(prefix(&self.error.message, LONGEST_DETAIL).to_owned()).filter(|text| !text.is_empty()),
        }
    }

    /// Adds what the message teaches about limits.
    pub(crate) fn teach(&self, limits: &mut Vec<Limit>) {
        for violation in &self.error.violations {
            if let (Some(dimension), Some(limit)) = (counted_by(violation), violation.value.filter(|n| *n > 0)) {
                let window = window_of(violation);
                let remaining = None;
                merge(limits, Limit { limit: Some(limit), remaining, window, ..told(dimension) });
            }
        }
        if let (Some(dimension), Some(limit)) = (self.prose.dimension, self.prose.limit.filter(|n| *n > 0)) {
            let (remaining, window) = (self.prose.remaining(), self.prose.window);
            merge(limits, Limit { limit: Some(limit), remaining, window, ..told(dimension) });
        }
    }

    fn codes(&self) -> impl Iterator<Item = &str> {
        self.error.codes.iter().copied().chain(self.scan.error_type)
    }

    /// The code that decided, else the first one.
    fn code(&self) -> Option<&str> {
        let known = rules::deciding_code(self.codes()).map(|(code, _)| code);
        known.or_else(|| self.codes().find(|code| !matches!(*code, "error" | "")))
    }

    fn kind(&self) -> Kind {
        let by_code = rules::deciding_code(self.codes()).map(|(_, kind)| kind);
        let by_prose = rules::kind_of_prose(self.provider, self.message);
        let is_final = |kind: &Kind| matches!(kind, Kind::QuotaExhausted | Kind::Oversize);
        let kind = match (by_code.filter(is_final), by_prose.filter(is_final)) {
            (Some(Kind::QuotaExhausted), _) => Kind::QuotaExhausted,
            (Some(kind), _) | (None, Some(kind)) => kind,
            _ if self.status == 413 => Kind::Oversize,
            _ => self.passing_kind(by_code, by_prose),
        };
        match kind {
            Kind::Throttled if self.prose.is_oversize() => Kind::Oversize,
            Kind::Throttled if self.is_quota_spent() => Kind::QuotaExhausted,
            Kind::Throttled if self.is_capacity() => Kind::Overloaded,
            kind => kind,
        }
    }

    /// The kind when neither code nor words are final: by code, unless that only says that something is wrong; by words;
    /// by status.
    fn passing_kind(&self, by_code: Option<Kind>, by_prose: Option<Kind>) -> Kind {
        let said = match (by_code, by_prose) {
            // Words for overload are more specific than the code for any throttle.
            (Some(Kind::Throttled), Some(Kind::Overloaded)) => Some(Kind::Overloaded),
            // A message about a wrong request may quote the request.
            (Some(Kind::Fatal), _) => None,
            (by_code, by_prose) => by_code.or(by_prose),
        };
        if let Some(kind) = said {
            return kind;
        }
        match rules::kind_of_status(self.status) {
            // An error in a response that began well.
            Kind::Ok => by_code.unwrap_or(Kind::Transient),
            kind => kind,
        }
    }

    /// A throttle that lasts for a day or more, or is about money.
    fn is_quota_spent(&self) -> bool {
        self.is_daily_at_google()
            || self.is_not_offered()
            || self.error.retry_delay.is_some_and(|delay| delay > LONGEST_GOOGLE_DELAY)
            || (self.prose.window.is_some_and(|window| window >= DAY) && self.exact_wait().is_none())
            || self.series().any(|s| s.counter.window.is_some_and(|w| w >= MONTH) && s.remaining() == Some(0))
            || self.is_spend_cap()
    }

    fn is_daily_at_google(&self) -> bool {
        self.error.violations.iter().any(|violation| {
            let id = violation.id.to_ascii_lowercase();
            DAILY_QUOTA_IDS.iter().any(|part| id.contains(part))
        })
    }

    /// Google's `limit: 0`: this model is not on this tier.
    fn is_not_offered(&self) -> bool {
        matches!(self.provider, Provider::Gemini | Provider::Vertex)
            && (self.prose.limit == Some(0) || self.error.violations.iter().any(|violation| violation.value == Some(0)))
    }

    /// Anthropic sends `retry-after` with every rate limit and never with a spend cap. A message that names the rate
    /// ("of 8,000 output tokens per minute") is about the rate, header or not, and headers that were not handed on
    /// prove nothing.
    fn is_spend_cap(&self) -> bool {
        self.provider == Provider::Anthropic
            && self.scan.seen
            && self.scan.retry_after.is_none()
            && self.scan.retry_after_ms.is_none()
            && self.prose.dimension.is_none()
    }

    /// A 429 that is not about the caller's own limit.
    fn is_capacity(&self) -> bool {
        let is_exhausted = self.error.codes.iter().any(|code| code.eq_ignore_ascii_case("resource_exhausted"));
        let is_shared_pool = is_exhausted && !self.error.has_details && self.prose.wait.is_none();
        let source_is_shared = self.error.limit_source.is_some_and(|source| source.contains("shared"));
        is_shared_pool || source_is_shared || self.scan.over_limit
    }

    /// The wait as stated, in all the ways of stating it.
    fn wait(&self, kind: Kind) -> Option<Duration> {
        match kind {
            Kind::Throttled | Kind::Overloaded | Kind::Transient => {}
            Kind::QuotaExhausted if self.has_lasting_window() => return self.plain_reset(),
            Kind::Ok | Kind::Oversize | Kind::QuotaExhausted | Kind::Fatal => return None,
        }
        let exact = self.exact_wait();
        let header = self.stated_in_headers();
        if kind == Kind::Throttled
            && let Some(renewal) = self.azure_renewal()
        {
            return exact.max(header).max(Some(renewal));
        }
        match (exact, header) {
            (Some(exact), Some(header)) if header >= exact && header.saturating_sub(exact) < ROUNDED_UP => Some(exact),
            (None, None) if kind == Kind::Throttled => self.plain_reset(),
            (exact, header) => exact.max(header),
        }
    }

    /// From the body: computed, in words, or in `RetryInfo`; the longest, since an earlier try is refused by one of them.
    fn exact_wait(&self) -> Option<Duration> {
        self.prose.computed_wait().max(self.prose.wait).max(self.error.retry_delay)
    }

    /// `retry-after-ms`, `retry-after`, and `LiteLLM`'s time of reset, beside which `retry-after` is a window's length.
    fn stated_in_headers(&self) -> Option<Duration> {
        let reset_at = self.scan.reset_at.or(self.prose.resets_at.map(When::At));
        if let Some(wait) = reset_at.and_then(|at| at.from(self.server_now)) {
            return Some(wait);
        }
        let either = |scan: &Scan<'_>| {
            let millis = scan.retry_after_ms.filter(|wait| !wait.is_zero());
            millis.or_else(|| scan.retry_after?.from(self.server_now)).or(scan.retry_after_ms)
        };
        either(self.scan).or_else(|| either(self.inner))
    }

    /// Azure's `retry-after` is too short when a counter is empty: recorded is 1, and 0 in milliseconds, with a minute to
    /// go. The counter is full again after its renewal period at the latest.
    fn azure_renewal(&self) -> Option<Duration> {
        let short_of = self.scan.short_of.and_then(dimension_in);
        self.scan
            .series
            .iter()
            .filter(|series| series.remaining() == Some(0))
            .filter(|series| short_of.is_none_or(|dimension| dimension == series.counter.dimension))
            .filter_map(super::limits::Series::renewal)
            .max()
    }

    /// The reset of an empty counter that is the only one: there it is the time to wait, unlike the time to a full
    /// bucket in `x-ratelimit-reset-requests`.
    fn plain_reset(&self) -> Option<Duration> {
        let is_plain = |name: &str| matches!(name, "" | "dynamic");
        self.series()
            .filter(|series| is_plain(series.counter.name) && series.remaining().is_none_or(|left| left == 0))
            .filter_map(|series| series.resets_in(self.server_now))
            .max()
    }

    fn has_lasting_window(&self) -> bool {
        self.prose.window.is_some_and(|window| window >= DAY) && self.error.violations.is_empty()
    }

    /// When a spent quota is renewed, where the provider does not state a wait.
    fn resets_in(&self, kind: Kind) -> Option<Duration> {
        if kind != Kind::QuotaExhausted {
            return None;
        }
        let now = self.server_now?;
        if self.is_daily_at_google() && !self.is_not_offered() {
            return Some(between(now, next_midnight_pacific(now)?));
        }
        self.scan.unified_reset.map(|at| between(now, at))
    }

    fn caller_time(&self, wait: Duration) -> Option<f64> {
        let now = u64::try_from(self.caller_now.or(self.server_now)?).ok();
        let now = now.map(Duration::from_nanos)?;
        now.checked_add(wait).map(|at| at.as_secs_f64())
    }

    fn series(&self) -> impl Iterator<Item = &super::limits::Series<'_>> {
        self.scan.series.iter().chain(&self.inner.series)
    }

    /// What was short: as stated, else the one dimension that has a counter at zero.
    fn dimension(&self) -> Option<Dimension> {
        self.scan
            .short_of
            .and_then(dimension_in)
            .or(self.prose.dimension)
            .or_else(|| self.violation().and_then(counted_by))
            .or_else(|| self.error.codes.iter().find_map(|code| dimension_named(code)))
            .or_else(|| {
                let mut empty = self.series().filter(|s| s.remaining() == Some(0)).map(|s| s.counter.dimension);
                let first = empty.next()?;
                empty.all(|other| other == first).then_some(first)
            })
    }

    /// The violation that decides: one of a day, if there is one.
    fn violation(&self) -> Option<&Violation<'_>> {
        let violations = &self.error.violations;
        violations.iter().find(|v| window_of(v).is_some_and(|w| w >= DAY)).or(violations.first())
    }

    fn window(&self, dimension: Dimension) -> Option<Duration> {
        self.prose.window.or_else(|| self.violation().and_then(window_of)).or_else(|| {
            let empty = self.series().find(|s| s.counter.dimension == dimension && s.remaining() == Some(0));
            empty.and_then(|s| s.learn(self.provider, self.server_now)).and_then(|limit| limit.window)
        })
    }
}

fn told(dimension: Dimension) -> Limit {
    let (limit, remaining, window, resets_in) = (None, None, None, None);
    Limit { dimension, name: "message", scope: "", limit, remaining, window, solved: false, refilled: false, resets_in }
}

/// Azure's `Tokens`, `LiteLLM`'s `input_tokens`.
fn dimension_in(value: &[u8]) -> Option<Dimension> {
    dimension_named(std::str::from_utf8(value).ok()?.trim())
}

fn dimension_named(name: &str) -> Option<Dimension> {
    Dimension::ALL.into_iter().find(|dimension| name.eq_ignore_ascii_case(dimension.name()))
}

/// What a Google quota counts, from `quotaMetric` and `quotaId`.
fn counted_by(violation: &Violation<'_>) -> Option<Dimension> {
    let names = [violation.metric, violation.id].map(str::to_ascii_lowercase);
    let has = |part: &str| names.iter().any(|name| name.contains(part));
    if has("input_token") || has("inputtoken") {
        Some(Dimension::InputTokens)
    } else if has("output_token") || has("outputtoken") {
        Some(Dimension::OutputTokens)
    } else if has("token") {
        Some(Dimension::Tokens)
    } else if has("request") {
        Some(Dimension::Requests)
    } else {
        None
    }
}

fn window_of(violation: &Violation<'_>) -> Option<Duration> {
    let id = violation.id.to_ascii_lowercase();
    if DAILY_QUOTA_IDS.iter().any(|part| id.contains(part)) {
        Some(DAY)
    } else if id.contains("perminute") {
        Some(Duration::from_secs(60))
    } else {
        None
    }
}
