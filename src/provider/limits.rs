//! Quotas that a response reveals.

use std::time::Duration;

use super::names::Provider;
use super::profile::Enforcement;
use super::when::{self, EpochNanos, When};
use crate::cost::Dimension;

/// What is known of one quota after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What it counts.
    pub dimension: Dimension,
    /// Which counter of that dimension: the provider's own words, such as `requests` or `tokens-month`, or `message`
    /// for one that was read from a message.
    pub name: &'static str,
    /// Whose counter (`api_key`, `team`, ...), where a proxy keeps several; empty otherwise.
    pub scope: &'static str,
    /// The amount per window.
    pub limit: Option<u64>,
    /// What was left when the response was made.
    pub remaining: Option<u64>,
    /// The period of the quota.
    pub window: Option<Duration>,
    /// Whether that was solved from the other numbers, and not stated.
    pub solved: bool,
    /// Whether it is a bucket that is refilled all the time, as far as that is known: what is left of a window falls until
    /// the window is over.
    pub refilled: bool,
    /// How long until it is full again (bucket) or starts anew (window). Not a time to wait: room for one more call
    /// comes earlier in a bucket.
    pub resets_in: Option<Duration>,
}

/// One counter as headers name it.
#[derive(Debug)]
pub struct Counter {
    /// The part of the header name that tells the counter: the `requests` of `x-ratelimit-limit-requests`.
    pub name: &'static str,
    /// What it counts.
    pub dimension: Dimension,
    /// The window, if the name tells it.
    pub window: Option<Duration>,
}

const SECOND: Duration = Duration::from_secs(1);
const TEN_SECONDS: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
/// A day, the window of RPD and TPD.
pub(crate) const DAY: Duration = Duration::from_secs(86_400);
/// A month is taken as 30 days.
pub(crate) const MONTH: Duration = Duration::from_secs(30 * 86_400);

const fn counter(name: &'static str, dimension: Dimension, window: Option<Duration>) -> Counter {
    Counter { name, dimension, window }
}

/// All counters that headers name.
pub const COUNTERS: &[Counter] = &[
    counter("requests", Dimension::Requests, None),
    counter("tokens", Dimension::Tokens, None),
    counter("input-tokens", Dimension::InputTokens, None),
    counter("output-tokens", Dimension::OutputTokens, None),
    // Together, OpenRouter, Cohere, and most of the unknown.
    counter("", Dimension::Requests, None),
    counter("dynamic", Dimension::Requests, None),
    // OpenAI.
    counter("tokens_usage_based", Dimension::Tokens, None),
    counter("project-requests", Dimension::Requests, None),
    counter("project-tokens", Dimension::Tokens, None),
    // Mistral and Cerebras write the window into the name.
    counter("req-10-second", Dimension::Requests, Some(TEN_SECONDS)),
    counter("req-second", Dimension::Requests, Some(SECOND)),
    counter("req-minute", Dimension::Requests, Some(MINUTE)),
    counter("requests-minute", Dimension::Requests, Some(MINUTE)),
    counter("requests-hour", Dimension::Requests, Some(HOUR)),
    counter("requests-day", Dimension::Requests, Some(DAY)),
    counter("tokens-minute", Dimension::Tokens, Some(MINUTE)),
    counter("tokens-hour", Dimension::Tokens, Some(HOUR)),
    counter("tokens-day", Dimension::Tokens, Some(DAY)),
    counter("tokens-month", Dimension::Tokens, Some(MONTH)),
    // Fireworks.
    counter("tokens-prompt", Dimension::InputTokens, None),
    counter("tokens-cache-adjusted-prompt", Dimension::InputTokens, None),
    counter("tokens-generated", Dimension::OutputTokens, None),
    // Together's tokens and Cohere's calls have headers of their own; see `Field::of`.
    counter("tokenlimit", Dimension::Tokens, None),
    counter("tokenlimit-dynamic", Dimension::Tokens, None),
    counter("trial-endpoint-call", Dimension::Requests, Some(MINUTE)),
    counter("monthly-call", Dimension::Requests, Some(MONTH)),
];

/// Whose counter a `LiteLLM` proxy reports.
const SCOPES: &[&str] =
    &["api_key", "key", "user", "team", "team_member", "end_user", "organization", "project", "model_per_key"];

/// Which number of a counter a header carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Limit,
    Remaining,
    Reset,
    Renewal,
}

impl Field {
    const NAMES: [(&'static [u8], Self); 4] = [
        (b"limit", Self::Limit),
        (b"remaining", Self::Remaining),
        (b"reset", Self::Reset),
        (b"renewalperiod", Self::Renewal),
    ];

    /// The field, counter and scope that a header of this (lower-case) name carries.
    pub(crate) fn of(name: &[u8]) -> Option<(Self, &'static Counter, &'static str)> {
        if let Some(rest) = name.strip_prefix(b"x-ratelimit-") {
            return Self::leading(rest).or_else(|| Self::scoped(rest));
        }
        // The three names of the IETF draft, which carry one counter.
        if let Some(rest) = name.strip_prefix(b"ratelimit-") {
            return Self::leading(rest);
        }
        if let Some(rest) = name.strip_prefix(b"anthropic-ratelimit-") {
            let dash = rest.iter().rposition(|b| *b == b'-')?;
            let (counter, field) = rest.split_at_checked(dash)?;
            return Some((Self::named(field.strip_prefix(b"-")?)?, find(counter)?, ""));
        }
        if let Some(rest) = name.strip_prefix(b"x-tokenlimit-") {
            let dynamic = rest.strip_suffix(b"-dynamic");
            let counter = if dynamic.is_some() { "tokenlimit-dynamic" } else { "tokenlimit" };
            return Some((Self::named(dynamic.unwrap_or(rest))?, find(counter.as_bytes())?, ""));
        }
        if let Some(rest) = name.strip_prefix(b"x-trial-endpoint-call-") {
            return Some((Self::named(rest)?, find(b"trial-endpoint-call")?, ""));
        }
        (name == b"x-endpoint-monthly-call-limit").then(|| Some((Self::Limit, find(b"monthly-call")?, ""))).flatten()
    }

    /// `limit-requests`, or `limit` alone.
    fn leading(rest: &[u8]) -> Option<(Self, &'static Counter, &'static str)> {
        let (name, field) = Self::NAMES.iter().find(|(name, _)| rest.starts_with(name))?;
        let counter = rest.get(name.len()..)?;
        let counter = if counter.is_empty() { counter } else { counter.strip_prefix(b"-")? };
        Some((*field, find(counter)?, ""))
    }

    /// `api_key-remaining-requests`.
    fn scoped(rest: &[u8]) -> Option<(Self, &'static Counter, &'static str)> {
        let scope = SCOPES
            .iter()
            .find(|scope| rest.strip_prefix(scope.as_bytes()).is_some_and(|after| after.starts_with(b"-")))?;
        let (field, counter, _) = Self::leading(rest.get(scope.len() + 1..)?)?;
        Some((field, counter, scope))
    }

    fn named(name: &[u8]) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, field)| *field)
    }
}

impl PartialEq for Counter {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

fn find(name: &[u8]) -> Option<&'static Counter> {
    COUNTERS.iter().find(|counter| counter.name.as_bytes() == name)
}

/// The headers of one counter, as they were sent.
#[derive(Debug)]
pub(crate) struct Series<'a> {
    pub counter: &'static Counter,
    pub scope: &'static str,
    limit: Option<&'a [u8]>,
    remaining: Option<&'a [u8]>,
    reset: Option<&'a [u8]>,
    renewal: Option<Duration>,
}

impl<'a> Series<'a> {
    pub(crate) fn new(counter: &'static Counter, scope: &'static str) -> Self {
        Self { counter, scope, limit: None, remaining: None, reset: None, renewal: None }
    }

    pub(crate) fn take(&mut self, field: Field, value: &'a [u8]) {
        match field {
            Field::Limit => self.limit = self.limit.or(Some(value)),
            Field::Remaining => self.remaining = self.remaining.or(Some(value)),
            Field::Reset => self.reset = self.reset.or(Some(value)),
            Field::Renewal => {
                self.renewal = self.renewal.or_else(|| when::seconds(value)).filter(|period| !period.is_zero());
            }
        }
    }

    /// The period after which Azure renews this counter, if it says.
    pub(crate) fn renewal(&self) -> Option<Duration> {
        self.renewal
    }

    /// The reset value, read against the server's clock.
    pub(crate) fn resets_in(&self, now: Option<EpochNanos>) -> Option<Duration> {
        let resets_in = When::parse(self.reset?)?.from(now)?;
        // Azure writes 0 for "unknown", beside a renewal period.
        (self.renewal.is_none() || !resets_in.is_zero()).then_some(resets_in)
    }

    /// What is left, unless the counter is unknown.
    pub(crate) fn remaining(&self) -> Option<u64> {
        if self.is_unknown() { None } else { when::count(self.remaining?) }
    }

    /// A limit of -1 (Azure's Responses API) or 0 means that the counter is unknown, not that nothing is left.
    fn is_unknown(&self) -> bool {
        self.limit.is_some_and(|limit| when::count(limit).is_none_or(|n| n == 0))
    }

    /// What the headers of this counter teach, if they teach anything.
    pub(crate) fn learn(&self, provider: Provider, now: Option<EpochNanos>) -> Option<Limit> {
        if self.is_unknown() {
            return None;
        }
        let limit = self.limit.and_then(when::count);
        let remaining = self.remaining();
        let resets_in = self.resets_in(now);
        let profile = provider.profile();
        let numbers = limit.zip(remaining).zip(resets_in).filter(|_| profile.resets_tell_window());
        let solved = numbers.and_then(|((limit, remaining), reset)| solve_window(limit, remaining, reset));
        let stated = self.counter.window.or(self.renewal);
        let window = stated.or(solved).or_else(|| profile.window(self.counter.dimension));
        // The resets of a window that starts anew solve to some other window now and then; those of a bucket always do, so a
        // server that only speaks like one is told by them.
        let is_other = numbers.is_some_and(|((limit, remaining), reset)| !describes_bucket(limit, remaining, reset));
        let refilled = profile.enforcement == Enforcement::ContinuousBucket && !is_other;
        (limit.is_some() || remaining.is_some()).then_some(Limit {
            dimension: self.counter.dimension,
            name: self.counter.name,
            scope: self.scope,
            limit,
            remaining,
            window,
            solved: stated.is_none() && solved.is_some(),
            refilled,
            resets_in,
        })
    }
}

/// Adds what a message taught, to the counter it speaks of if there is one.
pub(crate) fn merge(limits: &mut Vec<Limit>, told: Limit) {
    let same = |known: &&mut Limit| {
        known.dimension == told.dimension
            && (known.window.is_none() || known.window == told.window || told.window.is_none())
            && (known.limit.is_none() || told.limit.is_none() || known.limit == told.limit)
    };
    match limits.iter_mut().find(same) {
        Some(known) => {
            known.limit = told.limit.or(known.limit);
            known.remaining = told.remaining.or(known.remaining);
            known.solved &= told.window.is_none();
            known.window = told.window.or(known.window);
            known.refilled |= told.refilled;
            known.resets_in = known.resets_in.or(told.resets_in);
        }
        None => limits.push(told),
    }
}

/// What rounding to a millisecond costs, in nanoseconds.
const ROUNDING: u128 = 600_000;
/// The windows that exist.
const WINDOWS: [Duration; 5] = [SECOND, TEN_SECONDS, MINUTE, HOUR, DAY];

/// Whether the numbers can be those of a bucket as large as the limit, of some window that exists: what is left is rounded
/// to a whole number, and how long it takes to be full is not.
fn describes_bucket(limit: u64, remaining: u64, reset: Duration) -> bool {
    let used = u128::from(limit.saturating_sub(remaining));
    WINDOWS.into_iter().any(|window| {
        let one = window.as_nanos() / u128::from(limit.max(1));
        let expected = used * window.as_nanos() / u128::from(limit.max(1));
        expected.abs_diff(reset.as_nanos()) <= ROUNDING.max(expected / 50) + one
    })
}

/// The window of a continuously refilled bucket, solved from one set of headers: `W = reset * limit / (limit -
/// remaining)`, rounded to a window that exists (second, 10 seconds, minute, hour, day).
///
/// `OpenAI`'s and Groq's success headers obey this (recomputed from recordings); their `limit-requests` is per minute at
/// the one and per day at the other. `None` when nothing was used, or when no window explains the numbers within
/// 0.6 ms (what rounding to a millisecond costs) or 2 %.
pub fn solve_window(limit: u64, remaining: u64, reset: Duration) -> Option<Duration> {
    let used = u128::from(limit.checked_sub(remaining).filter(|used| *used > 0)?);
    let reset = reset.as_nanos();
    if reset < ROUNDING {
        return None;
    }
    let mut best: Option<(u128, Duration)> = None;
    for window in WINDOWS {
        let expected = used * window.as_nanos() / u128::from(limit);
        let error = expected.abs_diff(reset);
        if error <= ROUNDING.max(expected / 50) && best.is_none_or(|(least, _)| error < least) {
            best = Some((error, window));
        }
    }
    best.map(|(_, window)| window)
}
