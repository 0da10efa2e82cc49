//! What is said about an argument that makes no sense, and the reading of seconds.

use std::{error, fmt};

use super::Nanos;

/// The longest time that a setting may name, in seconds (31 years). Sums of two such times fit into [`Nanos`].
const LONGEST: f64 = 1e9;

/// An argument with a value that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidArgument {
    /// The argument's public name.
    pub argument: &'static str,
    /// The value that was given, as text.
    pub value: String,
    /// What would have been allowed.
    pub allowed: String,
}

impl InvalidArgument {
    pub(super) fn new(argument: &'static str, value: impl fmt::Display, allowed: impl Into<String>) -> Self {
        Self { argument, value: value.to_string(), allowed: allowed.into() }
    }
}

impl fmt::Display for InvalidArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} must be {}, not {}", self.argument, self.allowed, self.value)
    }
}

impl error::Error for InvalidArgument {}

/// Reads a number of seconds, at least `least`, into whole nanoseconds.
///
/// # Errors
///
/// [`InvalidArgument`] if it is not finite, below `least`, or longer than 1e9 seconds.
pub(super) fn nanos(argument: &'static str, seconds: f64, least: f64) -> Result<Nanos, InvalidArgument> {
    if !(least..=LONGEST).contains(&seconds) {
        return Err(InvalidArgument::new(
            argument,
            seconds,
            format!("a number of seconds from {least} to {LONGEST:e}"),
        ));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1e18 by the test above")]
    Ok((seconds * 1e9).round() as Nanos)
}

/// A length of time as people read it: `250 ms`, `20 s`, `1.5 s`.
pub(super) struct Readable(pub(super) Nanos);

impl fmt::Display for Readable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded to a millisecond, which is what providers state waits in; trailing zeros say nothing.
        let millis = self.0 / 1_000_000 + u64::from(self.0 % 1_000_000 >= 500_000);
        let (seconds, rest) = (millis / 1_000, millis % 1_000);
        match (seconds, rest) {
            (0, _) => write!(f, "{rest} ms"),
            (_, 0) => write!(f, "{seconds} s"),
            _ => write!(f, "{} s", format!("{seconds}.{rest:03}").trim_end_matches('0')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_nanoseconds() {
        assert_eq!(nanos("x", 0.0, 0.0), Ok(0));
        assert_eq!(nanos("x", -0.0, 0.0), Ok(0));
        assert_eq!(nanos("x", 0.1, 0.0), Ok(100_000_000));
        assert_eq!(nanos("x", 1e9, 0.0), Ok(1_000_000_000_000_000_000));
    }

    #[test]
    fn an_error_names_argument_value_and_what_is_allowed() {
        for (value, text) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (-1.0, "-1"), (1.1e9, "1100000000")] {
            let error = nanos("initial", value, 0.0).unwrap_err();
            assert_eq!(error.to_string(), format!("initial must be a number of seconds from 0 to 1e9, not {text}"));
        }
    }

    #[test]
    fn times_are_readable() {
        let texts = [
            (0, "0 ms"),
            (999_500_000, "1 s"),
            (308_000_000, "308 ms"),
            (1_500_000_000, "1.5 s"),
            (9_816_000_000, "9.816 s"),
            (3_600_000_000_000, "3600 s"),
            (u64::MAX, "18446744073.71 s"),
        ];
        for (time, text) in texts {
            assert_eq!(Readable(time).to_string(), text);
        }
    }
}
