//! What providers say, mean and count.
//!
//! [`Reader::read`] turns a status, headers and a body into a [`Reading`]: a [`Verdict`] and what was learned about
//! limits. [`Call`] and [`Usage`] turn a request body and a usage report into a cost, as the provider counts.
//! Everything here is a pure function of its arguments: no clock, no I/O, and no input that makes it panic.
//!
//! Facts are data: [`rules`] (what codes, words and statuses mean), [`profile`] (how each provider counts and
//! enforces), [`limits::COUNTERS`] (header names). `docs/verdicts.md` is printed from these, and `tests/data/provider/`
//! holds the recorded answers that they were made from.

mod body;
mod call;
mod events;
mod frames;
pub mod headers;
mod json;
pub mod limits;
mod names;
pub mod profile;
pub mod prose;
pub mod rules;
mod skim;
pub mod streaming;
mod usage;
mod usage_reader;
mod verdict;
pub mod when;

use std::borrow::Cow;
use std::time::Duration;

pub use call::{Call, USUAL_OUTPUT, is_free};
pub use headers::Headers;
pub use limits::Limit;
pub use names::Provider;
pub use usage::Usage;
pub use usage_reader::UsageReader;
pub use verdict::{Kind, LONGEST_GOOGLE_DELAY, Verdict};

use body::ErrorBody;
use headers::Scan;
use prose::Prose;
use verdict::Evidence;
use when::EpochNanos;

/// What a response said.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Whose answer it is: as given, or as its headers or its error show.
    pub provider: Provider,
    /// What it means.
    pub verdict: Verdict,
    /// What it taught about limits, one entry per counter.
    pub limits: Vec<Limit>,
    /// Tokens that the provider says it charged for this call (Mistral).
    pub charged_tokens: Option<u64>,
    /// Served or not, the provider says that the account is at or above its share (Fireworks): send no more than now.
    pub over_limit: bool,
    /// When the response was made, by its own `date`, in nanoseconds since the Unix epoch: tells late answers from new.
    pub made_at: Option<i128>,
}

/// Reads responses of one provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Who answers. [`Provider::Unknown`] is resolved from headers and body where these tell.
    pub provider: Provider,
    /// No wait is longer than this.
    pub max_wait: Duration,
    /// A throttle with a longer wait than this is a quota spent for now: not retryable, with the time of its reset.
    pub patience: Duration,
}

impl Reader {
    /// The default of [`Reader::max_wait`]: a day, the longest window with stated waits.
    pub const MAX_WAIT: Duration = limits::DAY;
    /// The default of [`Reader::patience`]: ten minutes, as long as the SDKs of `OpenAI` and Anthropic wait for a call.
    pub const PATIENCE: Duration = Duration::from_secs(600);

    /// A reader with default limits on waits.
    pub const fn new(provider: Provider) -> Self {
        Self { provider, max_wait: Self::MAX_WAIT, patience: Self::PATIENCE }
    }

    /// What a response means and teaches.
    ///
    /// `status` is 0 when there was no response. `body` may be empty, partial or huge: a bounded part of it is looked
    /// at. `now` is the caller's clock in seconds since the Unix epoch; absolute times are read against the
    /// response's `date`, and against `now` without one. Anything may be garbage; what cannot be read is left out.
    pub fn read(&self, status: u16, headers: Headers<'_>, body: &[u8], now: f64) -> Reading {
        let mut scan = headers.scan(self.provider);
        let served = (100..300).contains(&status);
        // An error inside of an answer came after its headers: what they do not say means nothing.
        scan.seen &= !served;
        let parsed = if served { body::parse_success(body) } else { body::parse(body) };
        if served && parsed.is_none() {
            let server_now = scan.date.or_else(|| when::from_epoch_seconds(now));
            return Self::reading(scan.provider, &scan, server_now, Verdict::ok());
        }
        let mut error = parsed.as_ref().map_or_else(|| ErrorBody::text(body), ErrorBody::find);
        let embedded = error.embedded();
        if let Some(embedded) = &embedded {
            error.absorb(ErrorBody::find(embedded));
        }
        self.weigh(status, &scan, &error, now)
    }

    /// What one event of a stream means: its data, without the `data:` in front. `None` unless it is an error.
    ///
    /// `headers` are those of the response that the stream came with.
    pub fn read_event(&self, headers: Headers<'_>, data: &[u8], now: f64) -> Option<Reading> {
        let value = body::parse_success(data)?;
        // As in an answer that was served.
        let scan = Scan { seen: false, ..headers.scan(self.provider) };
        Some(self.weigh(200, &scan, &ErrorBody::find(&value), now))
    }

    fn weigh(&self, status: u16, scan: &Scan<'_>, error: &ErrorBody<'_>, now: f64) -> Reading {
        let provider = if scan.provider == Provider::Unknown { error.shape } else { scan.provider };
        let pairs: Vec<(&[u8], &[u8])> =
            error.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let inner = Headers::new(&pairs).scan(provider);
        let caller_now = when::from_epoch_seconds(now);
        let server_now = scan.date.or(caller_now);
        let message = lower(&error.message);
        let evidence = Evidence {
            provider,
            // An error in a response that began well carries its status in the body.
            status: if (100..300).contains(&status) { error.status.unwrap_or(status) } else { status },
            scan,
            inner: &inner,
            error,
            message: &message,
            prose: Prose::read(&message),
            server_now,
            caller_now,
        };
        let verdict = evidence.verdict(self.max_wait, self.patience);
        let mut reading = Self::reading(provider, scan, server_now, verdict);
        reading.limits.extend(inner.series.iter().filter_map(|series| series.learn(provider, server_now)));
        evidence.teach(&mut reading.limits);
        reading
    }

    fn reading(provider: Provider, scan: &Scan<'_>, server_now: Option<EpochNanos>, verdict: Verdict) -> Reading {
        Reading {
            provider,
            verdict,
            limits: scan.series.iter().filter_map(|series| series.learn(provider, server_now)).collect(),
            charged_tokens: scan.query_cost,
            over_limit: scan.over_limit,
            made_at: scan.date,
        }
    }
}

/// What a response means and teaches, with default limits on waits; see [`Reader::read`].
pub fn read(provider: Provider, status: u16, headers: Headers<'_>, body: &[u8], now: f64) -> Reading {
    Reader::new(provider).read(status, headers, body, now)
}

fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) { text.to_ascii_lowercase().into() } else { text.into() }
}
