//! How each provider counts and enforces, as data.
//!
//! The code that estimates and settles costs reads these rows, and so does the table in `docs/verdicts.md`. Sources:
//! **documented** by the vendor, **computed** from recorded messages and headers, **observed** by third parties.

use std::time::Duration;

use super::names::Provider;
use crate::clock::{Nanos, SECOND as ONE_SECOND};
use crate::cost::Dimension;
use crate::rate::Rate;

/// How a provider lets calls through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement {
    /// A token bucket as large as the limit, refilled all the time; daily limits too.
    ContinuousBucket,
    /// Counters that start anew each window, with shorter windows for requests.
    FixedWindow,
    /// What was used in the last window counts.
    SlidingWindow,
    /// Limits that the provider moves with load and use.
    Adaptive,
    /// A pool shared with other customers.
    SharedPool,
    /// A queue; when it is full, 503.
    Queue,
    /// Not known.
    Undocumented,
}

/// How many tokens a call takes when it is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reservation {
    /// The larger of `max_tokens` and an estimate of the text.
    LargerOfTextAndMax,
    /// The text plus `max_tokens`, for each choice. `unset` is what an absent `max_tokens` reserves, if that is known.
    TextPlusMax {
        /// Tokens reserved for the output when the request does not limit it.
        unset: Option<u64>,
    },
    /// The text alone; output is not limited.
    TextOnly,
    /// What is really used, or not known: `max_tokens` reserves nothing.
    Usage,
}

/// Whether prompt tokens read from the provider's cache count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CachedTokens {
    /// They count, or nothing is said about them.
    Count,
    /// They do not count.
    Free,
    /// They do not count as input tokens, but in the total.
    FreeAsInput,
}

/// Whether what was reserved too much is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Reserved and trued up to what was used.
    ToUsage,
    /// Counted as it is used.
    AsUsed,
    /// Not known.
    Undocumented,
}

/// One provider's row.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// Whose row.
    pub provider: Provider,
    /// The name as people write it.
    pub title: &'static str,
    /// How limits are enforced.
    pub enforcement: Enforcement,
    /// What a call reserves.
    pub reservation: Reservation,
    /// What becomes of the reservation.
    pub settlement: Settlement,
    /// Cached prompt tokens.
    pub cached: CachedTokens,
    /// Whether failed requests count against the request limit; `None` if not known.
    pub failures_count: Option<bool>,
    /// The largest burst of requests that is safe, as a share of a window: 1 is a whole window's worth at once.
    pub burst: f64,
    /// Whether requests, and tokens where their window is a second, are counted in windows of a second or ten inside those
    /// that are quoted.
    pub sub_windows: bool,
    /// The window of request limits, where responses do not tell it.
    pub request_window: Option<Duration>,
    /// The window of token limits, where responses do not tell it.
    pub token_window: Option<Duration>,
    /// Whose quota it is.
    pub scope: &'static str,
    /// Where this is from, and what to know.
    pub note: &'static str,
}

const SECOND: Option<Duration> = Some(Duration::from_secs(1));
const MINUTE: Option<Duration> = Some(Duration::from_secs(60));
const DAY: Option<Duration> = Some(Duration::from_secs(86_400));

/// What holds when nothing is known; rows name what differs.
const DEFAULT: Profile = Profile {
    provider: Provider::Unknown,
    title: "any other",
    enforcement: Enforcement::Undocumented,
    reservation: Reservation::Usage,
    settlement: Settlement::Undocumented,
    cached: CachedTokens::Count,
    failures_count: None,
    burst: SECOND_OF_MINUTE,
    sub_windows: false,
    request_window: None,
    token_window: None,
    scope: "",
    note: "Windows are solved from the headers, where these describe a bucket",
};

/// A second's worth of a minute: what is safe where shorter windows may be enforced inside the stated one.
const SECOND_OF_MINUTE: f64 = 1.0 / 60.0;

/// What of a minute's tokens may leave at once.
const TOKEN_BURST: f64 = 1.0 / 6.0;
/// From here on a limit is one that is used up now and then, and not paced.
const HOUR: Nanos = 3_600 * ONE_SECOND;
const MINUTE_LONG: Nanos = 60 * ONE_SECOND;

/// All rows, in the order of [`Provider::ALL`].
pub const PROFILES: [Profile; 17] = [
    Profile {
        provider: Provider::OpenAi,
        title: "OpenAI",
        enforcement: Enforcement::ContinuousBucket,
        reservation: Reservation::LargerOfTextAndMax,
        failures_count: Some(true),
        scope: "organization and project",
        note: "Bucket: computed, for daily limits too; may be quantized to less than a second, failed requests count, \
               larger of max_tokens and text: documented. A ramp can be refused inside the limits (slow_down)",
        ..DEFAULT
    },
    Profile {
        provider: Provider::AzureOpenAi,
        title: "Azure OpenAI, Foundry, GitHub Models",
        enforcement: Enforcement::FixedWindow,
        reservation: Reservation::TextPlusMax { unset: None },
        settlement: Settlement::ToUsage,
        sub_windows: true,
        token_window: MINUTE,
        scope: "deployment",
        note: "Minute windows for tokens, 1 or 10 seconds for requests, text + max_tokens x best_of: documented; credited \
               at completion: observed. `limit-requests` is per `renewalperiod`",
        ..DEFAULT
    },
    Profile {
        provider: Provider::Anthropic,
        title: "Anthropic",
        enforcement: Enforcement::ContinuousBucket,
        settlement: Settlement::AsUsed,
        cached: CachedTokens::Free,
        request_window: MINUTE,
        token_window: MINUTE,
        scope: "organization, or workspace",
        note: "Documented: input is estimated and adjusted, output counts as it is produced, max_tokens does not; cached \
               reads are free but for Haiku 3.5; short bursts may trip; a steep ramp meets the acceleration limit",
        ..DEFAULT
    },
    Profile {
        provider: Provider::Gemini,
        title: "Gemini API",
        enforcement: Enforcement::SlidingWindow,
        reservation: Reservation::TextOnly,
        failures_count: Some(true),
        request_window: MINUTE,
        token_window: MINUTE,
        scope: "project",
        note: "Documented: tokens per minute count input only; daily quotas are reset at midnight Pacific; actual \
               capacity may vary",
        ..DEFAULT
    },
    Profile {
        provider: Provider::Vertex,
        title: "Vertex AI",
        enforcement: Enforcement::SharedPool,
        reservation: Reservation::TextOnly,
        scope: "project and region",
        note: "Dynamic shared quota: a 429 without details says that the pool is busy (observed)",
        ..DEFAULT
    },
    Profile {
        provider: Provider::Bedrock,
        title: "AWS Bedrock",
        reservation: Reservation::TextPlusMax { unset: Some(BEDROCK_UNSET_MAX) },
        settlement: Settlement::ToUsage,
        cached: CachedTokens::Free,
        request_window: MINUTE,
        token_window: MINUTE,
        scope: "account, region and model",
        note: "Documented: input + cache writes + cache reads + maxTokens are taken at the start (unset: the model's \
               maximum), trued up at the end; output of Claude is multiplied when settled",
        ..DEFAULT
    },
    Profile {
        provider: Provider::Mistral,
        title: "Mistral",
        enforcement: Enforcement::SlidingWindow,
        settlement: Settlement::AsUsed,
        sub_windows: true,
        request_window: SECOND,
        token_window: MINUTE,
        scope: "workspace",
        note: "Observed: a sliding 60 s window, debited by what was used; the window of requests is in the header's name",
        ..DEFAULT
    },
    Profile {
        provider: Provider::Groq,
        title: "Groq",
        enforcement: Enforcement::ContinuousBucket,
        cached: CachedTokens::Free,
        request_window: DAY,
        token_window: MINUTE,
        scope: "organization",
        note: "Bucket: computed, for daily limits too. `limit-requests` is per day, `limit-tokens` per minute; cached tokens \
               do not count: documented",
        ..DEFAULT
    },
    Profile {
        provider: Provider::Cohere,
        title: "Cohere",
        request_window: MINUTE,
        scope: "key",
        note: "Calls per minute and endpoint; trial keys also 1,000 calls per month. No headers on 429",
        ..DEFAULT
    },
    Profile {
        provider: Provider::Together,
        title: "Together",
        enforcement: Enforcement::Adaptive,
        burst: 1.0,
        sub_windows: true,
        request_window: SECOND,
        token_window: SECOND,
        scope: "key",
        note: "Documented per second, and dynamic; third parties disagree about the unit",
        ..DEFAULT
    },
    Profile {
        provider: Provider::Fireworks,
        title: "Fireworks",
        enforcement: Enforcement::Adaptive,
        request_window: MINUTE,
        token_window: MINUTE,
        scope: "account",
        note: "Documented: limits grow with use; `x-ratelimit-over-limit: yes` marks a call served near the cap",
        ..DEFAULT
    },
    Profile {
        provider: Provider::OpenRouter,
        title: "OpenRouter",
        enforcement: Enforcement::FixedWindow,
        request_window: None,
        scope: "key",
        note: "Free models: requests per minute and day; the headers are often only in the body, times in epoch \
               milliseconds (recorded)",
        ..DEFAULT
    },
    Profile {
        provider: Provider::DeepSeek,
        title: "DeepSeek",
        enforcement: Enforcement::Queue,
        scope: "key",
        note: "No published limits; keep-alive lines while queued, and 429 and 503 all the same (documented)",
        ..DEFAULT
    },
    Profile {
        provider: Provider::Ollama,
        title: "Ollama",
        enforcement: Enforcement::Queue,
        scope: "host",
        note: "OLLAMA_NUM_PARALLEL calls at once (1), OLLAMA_MAX_QUEUE waiting (512), then 503",
        ..DEFAULT
    },
    Profile {
        provider: Provider::Vllm,
        title: "vLLM",
        enforcement: Enforcement::Queue,
        scope: "host",
        note: "No quota: calls queue and get slower",
        ..DEFAULT
    },
    Profile {
        provider: Provider::LiteLlm,
        title: "LiteLLM proxy",
        enforcement: Enforcement::FixedWindow,
        reservation: Reservation::TextPlusMax { unset: None },
        settlement: Settlement::ToUsage,
        cached: CachedTokens::FreeAsInput,
        request_window: MINUTE,
        token_window: MINUTE,
        burst: 1.0,
        scope: "key, user, team, model",
        note: "A window starts with its first call; `retry-after` is its length, not what is left of it",
        ..DEFAULT
    },
    DEFAULT,
];

/// The smallest of the models' maxima (64 K to 128 K), which Bedrock reserves when `maxTokens` is not set.
const BEDROCK_UNSET_MAX: u64 = 64_000;

impl Provider {
    /// How this provider counts and enforces.
    pub fn profile(self) -> &'static Profile {
        PROFILES.iter().find(|profile| profile.provider == self).unwrap_or(&DEFAULT)
    }
}

/// So much of an amount.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a cast saturates
fn part(amount: u64, share: f64) -> u64 {
    (amount as f64 * share) as u64
}

impl Profile {
    /// Whether reset headers are exact times to a full bucket, from which the window can be solved. Assumed of the
    /// unknown too: a solution is only taken if it is a usual window. (Anthropic rounds to seconds and thousands.)
    pub fn resets_tell_window(&self) -> bool {
        matches!(self.provider, Provider::OpenAi | Provider::Groq | Provider::Unknown)
    }

    /// A limit that this provider states as a rate: how much may leave at once, and whether a window guards it, is chosen by
    /// what is known of its enforcement.
    ///
    /// - A limit of an hour or more may be used at once; where it is a bucket that is refilled all the time, so is the rate.
    /// - Requests leave in bursts of [`Profile::burst`].
    /// - Tokens leave in bursts of a sixth of the window: nobody is known to count them in shorter ones.
    ///
    /// `None` if the amount or the period is beyond what a rate can be.
    pub fn rate(&self, dimension: Dimension, amount: u64, period: Nanos) -> Option<Rate> {
        let rate = Rate::new(amount, period).ok()?;
        if period >= HOUR {
            let refilled = self.enforcement == Enforcement::ContinuousBucket;
            return rate.with_burst(amount).ok().map(|rate| rate.with_window(!refilled));
        }
        let share = if dimension == Dimension::Requests { self.burst } else { self.burst.max(TOKEN_BURST) };
        rate.with_burst(part(amount, share).clamp(1, amount)).ok()
    }

    /// The rate for a limit per minute that a person knows and no answer has stated.
    ///
    /// Where shorter windows are enforced inside ([`Profile::sub_windows`]), of a second or of ten, calls leave evenly, 5 %
    /// below the limit and at most 20 ms' worth at once: delays may spread by 50 ms before a window of one second is
    /// overrun, and by half a second for one of ten.
    ///
    /// `None` if the amount is beyond what a rate can be.
    pub fn per_minute(&self, dimension: Dimension, amount: u64) -> Option<Rate> {
        let is_shorter = dimension == Dimension::Requests || self.window(dimension) == SECOND;
        if !(self.sub_windows && is_shorter) {
            return self.rate(dimension, amount, MINUTE_LONG);
        }
        let rate = Rate::new(amount, MINUTE_LONG / 20 * 21).ok()?;
        rate.with_burst((amount / 3_000).max(1)).ok()
    }

    /// Which share of a model's calls its expected output covers: where output counts and `max_tokens` reserves nothing,
    /// nearly all, since what is short would be noticed only when it is too late; else half.
    pub fn expected_share(&self) -> f64 {
        if self.reservation == Reservation::Usage { 0.95 } else { 0.5 }
    }

    /// The window of a limit on this dimension, where responses do not tell it.
    pub fn window(&self, dimension: Dimension) -> Option<Duration> {
        if dimension == Dimension::Requests { self.request_window } else { self.token_window }
    }
}

/// By how much Bedrock multiplies the output of a model when a call is settled.
///
/// Documented, as quoted by third parties: 15 for Claude Opus 4.8, 10 for Opus 5, Opus 5.5 and Sonnet 5, 5 for earlier
/// Claude models, 1 for others.
pub fn bedrock_burndown(model: &str) -> u64 {
    let model = model.to_ascii_lowercase();
    let is_any = |names: &[&str]| names.iter().any(|name| model.contains(name));
    if !model.contains("claude") {
        1
    } else if is_any(&["opus-4-8", "opus-4.8"]) {
        15
    } else if is_any(&["opus-5", "sonnet-5"]) {
        10
    } else {
        5
    }
}
