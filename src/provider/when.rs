//! Points in time and durations as providers write them.
//!
//! One header name carries a Go duration at one provider, epoch milliseconds at another, a date at a third. All forms
//! are told apart by the value alone, so that a proxy in front of a provider changes nothing.

use std::str;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Nanoseconds since the Unix epoch.
pub(crate) type EpochNanos = i128;

const SECOND: u128 = 1_000_000_000;
/// Bare numbers from here on are seconds since the epoch (2001 or later), smaller ones are seconds from now.
const FIRST_EPOCH_SECONDS: u128 = 1_000_000_000 * SECOND;
/// Bare numbers from here on are milliseconds since the epoch.
const FIRST_EPOCH_MILLIS: u128 = 1_000_000_000_000 * SECOND;
/// The end of the year 9999. No provider means a later time.
const LAST_EPOCH: u128 = 253_402_300_799 * SECOND;
/// More integer digits than this are garbage, and would overflow.
const MOST_DIGITS: usize = 20;

/// A time stated by a server: from now, or absolute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// This long after the response.
    After(Duration),
    /// Nanoseconds since the Unix epoch, on the server's clock.
    At(i128),
}

impl When {
    /// Reads a reset or retry value in any form that a provider uses.
    ///
    /// In this order: a bare number (from 10^12 on epoch milliseconds, from 10^9 on epoch seconds, else seconds from
    /// now, fractions allowed), a Go duration (`6m0s`, `172.799999ms`), an RFC 3339 time (also as `2026-01-01 00:00:00
    /// UTC`), an HTTP date. Anything else, and anything negative, empty or not finite, is `None`.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let value = value.trim_ascii();
        if !value.first()?.is_ascii_alphanumeric() && !value.starts_with(b".") && !value.starts_with(b"+") {
            return None;
        }
        if let Some(number) = decimal(value) {
            return match number {
                n if n >= FIRST_EPOCH_MILLIS => at(n / 1000),
                n if n >= FIRST_EPOCH_SECONDS => at(n),
                n => Some(Self::After(from_nanos(n))),
            };
        }
        if let Some(duration) = go_duration(value) {
            return Some(Self::After(duration));
        }
        date(value).map(Self::At)
    }

    /// How long from `now` (the server's clock, where known). A time in the past is no wait; an absolute time
    /// without a clock to read it against is unknown.
    pub fn from(self, now: Option<EpochNanos>) -> Option<Duration> {
        match self {
            Self::After(duration) => Some(duration),
            Self::At(at) => Some(between(now?, at)),
        }
    }
}

/// From `now` to `then`, zero if that is past.
pub(crate) fn between(now: EpochNanos, then: EpochNanos) -> Duration {
    from_nanos(u128::try_from(then.saturating_sub(now)).unwrap_or(0))
}

/// An absolute time: RFC 3339, the same with a space and `UTC`, or an HTTP date.
pub(crate) fn date(value: &[u8]) -> Option<EpochNanos> {
    let text = str::from_utf8(value.trim_ascii()).ok()?;
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        let timestamp = match text.strip_suffix(" UTC") {
            Some(civil) => civil.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp(),
            None => text.parse::<Timestamp>().ok()?,
        };
        return Some(timestamp.as_nanosecond());
    }
    let time: SystemTime = httpdate::parse_http_date(text).ok()?;
    time.duration_since(UNIX_EPOCH).ok().and_then(|d| i128::try_from(d.as_nanos()).ok())
}

/// The next midnight in California, where Gemini's daily quotas are reset.
///
/// Source: Gemini API documentation, rate limits ("RPD quotas reset at midnight Pacific time"). The rule of the zone
/// is written out, since a container may have no time zone database.
pub(crate) fn next_midnight_pacific(now: EpochNanos) -> Option<EpochNanos> {
    let pacific = TimeZone::posix("PST8PDT,M3.2.0,M11.1.0").ok()?;
    let today = Timestamp::from_nanosecond(now).ok()?.to_zoned(pacific);
    Some(today.tomorrow().ok()?.start_of_day().ok()?.timestamp().as_nanosecond())
}

/// Epoch seconds as a float, as nanoseconds; `None` unless finite and within the years 1970 to 9999.
pub(crate) fn from_epoch_seconds(seconds: f64) -> Option<EpochNanos> {
    let since = Duration::try_from_secs_f64(seconds).ok()?;
    (since.as_nanos() <= LAST_EPOCH).then_some(i128::try_from(since.as_nanos()).ok()?)
}

/// A Go duration such as `12ms`, `6m0s`, `2h22m12.864s` or `1.5µs`; days (`d`) are understood too.
///
/// Source: the format of Go's `time.Duration.String`, in which `OpenAI` and Groq write their reset headers.
pub fn go_duration(value: &[u8]) -> Option<Duration> {
    let mut rest = value.trim_ascii();
    let mut total = 0_u128;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.iter().take_while(|b| b.is_ascii_digit() || **b == b'.').count();
        let (number, tail) = rest.split_at_checked(digits)?;
        let letters = tail.iter().take_while(|b| !b.is_ascii_digit() && **b != b'.').count();
        let (unit, tail) = tail.split_at_checked(letters)?;
        let nanos: u128 = match unit {
            b"ns" => 1,
            b"us" | b"\xc2\xb5s" | b"\xce\xbcs" => 1_000,
            b"ms" => 1_000_000,
            b"s" => SECOND,
            b"m" => 60 * SECOND,
            b"h" => 3_600 * SECOND,
            b"d" => 86_400 * SECOND,
            _ => return None,
        };
        total = total.checked_add(decimal(number)?.checked_mul(nanos)? / SECOND)?;
        rest = tail;
    }
    Some(from_nanos(total))
}

/// A bare number of seconds.
pub(crate) fn seconds(value: &[u8]) -> Option<Duration> {
    decimal(value.trim_ascii()).map(from_nanos)
}

/// A bare number of milliseconds.
pub(crate) fn millis(value: &[u8]) -> Option<Duration> {
    decimal(value.trim_ascii()).map(|n| from_nanos(n / 1000))
}

/// A count: a whole number, or the whole part of one with a fraction. `-1`, which means unknown, is `None`.
pub(crate) fn count(value: &[u8]) -> Option<u64> {
    u64::try_from(decimal(value.trim_ascii())? / SECOND).ok()
}

/// A number without sign or exponent, in billionths. Decimal arithmetic keeps waits exact to the nanosecond.
fn decimal(value: &[u8]) -> Option<u128> {
    let value = value.strip_prefix(b"+").unwrap_or(value);
    let point = value.iter().position(|b| *b == b'.').unwrap_or(value.len());
    let (whole, fraction) = value.split_at_checked(point)?;
    let fraction = fraction.strip_prefix(b".").unwrap_or(fraction);
    if whole.len() + fraction.len() == 0 || whole.len() > MOST_DIGITS {
        return None;
    }
    let mut number = 0_u128;
    for digit in whole {
        number = number * 10 + u128::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    number *= SECOND;
    let mut unit = SECOND / 10;
    for digit in fraction {
        number += u128::from(digit.is_ascii_digit().then(|| digit - b'0')?) * unit;
        unit /= 10;
    }
    Some(number)
}

fn at(nanos: u128) -> Option<When> {
    (nanos <= LAST_EPOCH).then_some(When::At(i128::try_from(nanos).ok()?))
}

pub(crate) fn from_nanos(nanos: u128) -> Duration {
    let whole = u64::try_from(nanos / SECOND).unwrap_or(u64::MAX);
    let part = u32::try_from(nanos % SECOND).unwrap_or(0);
    Duration::new(whole, part)
}
