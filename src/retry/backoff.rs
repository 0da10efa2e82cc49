//! How long to wait before an attempt where the provider stated no wait.

use std::str::FromStr;

use super::{InvalidArgument, Nanos, Random, argument};

/// How chance spreads a delay, so that calls that failed together do not come back together.
///
/// Names and formulas are those of Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015). `v` is
/// the exponential step `min(max_delay, initial * factor^(n - 1))` before the `n`-th retry, and `U` is uniform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Jitter {
    /// `v`. Only for tests and for a single caller: many callers stay in step.
    None,
    /// `U(0, v)`. Needs the fewest calls for the time until all are through.
    #[default]
    Full,
    /// `v / 2 + U(0, v / 2)`. Never shorter than half a step.
    Equal,
    /// `min(max_delay, U(initial, 3 * previous delay))`. Its steps grow by chance and ignore `factor`.
    Decorrelated,
}

impl FromStr for Jitter {
    type Err = InvalidArgument;

    fn from_str(name: &str) -> Result<Self, InvalidArgument> {
        match name {
            "none" => Ok(Self::None),
            "full" => Ok(Self::Full),
            "equal" => Ok(Self::Equal),
            "decorrelated" => Ok(Self::Decorrelated),
            _ => Err(InvalidArgument::new(
                "jitter",
                format_args!("{name:?}"),
                r#""full", "equal", "decorrelated" or "none""#,
            )),
        }
    }
}

/// Exponential backoff with a ceiling and a jitter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    initial: Nanos,
    factor: f64,
    max_delay: Nanos,
    jitter: Jitter,
}

impl Backoff {
    /// A backoff whose first step is `initial` seconds, each further one `factor` times as long, none longer than
    /// `max_delay` seconds.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`] unless `0 <= initial <= max_delay <= 1e9` and `factor` is finite and at least 1.
    pub fn new(initial: f64, factor: f64, max_delay: f64, jitter: Jitter) -> Result<Self, InvalidArgument> {
        let max = argument::nanos("max_delay", max_delay, 0.0)?;
        let first = argument::nanos("initial", initial, 0.0)?;
        if first > max {
            return Err(InvalidArgument::new("initial", initial, format!("at most max_delay ({max_delay} s)")));
        }
        if !factor.is_finite() || factor < 1.0 {
            return Err(InvalidArgument::new("factor", factor, "a finite number, at least 1"));
        }
        Ok(Self { initial: first, factor, max_delay: max, jitter })
    }

    /// The longest delay it gives.
    pub const fn max_delay(&self) -> Nanos {
        self.max_delay
    }

    /// The delay before retry number `retry` (the first is 1), by chance. `previous` is the delay before the retry
    /// before it, if there was one.
    pub fn delay(&self, retry: u32, previous: Option<Nanos>, random: &mut Random) -> Nanos {
        let step = self.step(retry);
        match self.jitter {
            Jitter::None => step,
            Jitter::Full => random.between(0, step),
            Jitter::Equal => random.between(step / 2, step),
            Jitter::Decorrelated => {
                let previous = previous.unwrap_or(self.initial).max(self.initial);
                random.between(self.initial, previous.saturating_mul(3)).min(self.max_delay)
            }
        }
    }

    /// The step before retry number `retry` without jitter: `min(max_delay, initial * factor^(retry - 1))`.
    pub fn step(&self, retry: u32) -> Nanos {
        #[expect(clippy::cast_precision_loss, reason = "a delay is exact to 1 part in 2^53")]
        let (initial, max) = (self.initial as f64, self.max_delay as f64);
        // The power may be infinite, and 0 * infinity is not a number: a backoff that starts at zero stays there.
        let step = if self.initial == 0 { 0.0 } else { initial * self.factor.powf(f64::from(retry.saturating_sub(1))) };
        if step >= max {
            return self.max_delay;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and max_delay")]
        (step.round() as Nanos).min(self.max_delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn steps_grow_to_the_ceiling() {
        let backoff = Backoff::new(1.0, 2.0, 60.0, Jitter::None).unwrap();
        let steps: Vec<Nanos> = (1..=8).map(|retry| backoff.step(retry) / SECOND).collect();
        assert_eq!(steps, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn no_retry_number_overflows() {
        for (initial, factor, max) in [(1.0, 2.0, 60.0), (1e9, 1e308, 1e9), (0.0, 2.0, 60.0), (0.0, 1.0, 0.0)] {
            let backoff = Backoff::new(initial, factor, max, Jitter::None).unwrap();
            for retry in [0, 1, 63, 64, 1_100, u32::MAX] {
                assert!(backoff.step(retry) <= backoff.max_delay());
            }
        }
        assert_eq!(Backoff::new(0.0, 2.0, 60.0, Jitter::None).unwrap().step(u32::MAX), 0);
        assert_eq!(Backoff::new(1.0, 1.0, 60.0, Jitter::None).unwrap().step(u32::MAX), SECOND);
    }

    #[test]
    fn decorrelated_starts_from_the_initial_delay() {
        let backoff = Backoff::new(1.0, 2.0, 60.0, Jitter::Decorrelated).unwrap();
        let mut random = Random::new(1);
        for _ in 0..100 {
            assert!((SECOND..=3 * SECOND).contains(&backoff.delay(1, None, &mut random)));
            assert!((SECOND..=60 * SECOND).contains(&backoff.delay(9, Some(Nanos::MAX), &mut random)));
            // A stated wait shorter than `initial` came before.
            assert!((SECOND..=3 * SECOND).contains(&backoff.delay(2, Some(5), &mut random)));
        }
    }

    #[test]
    fn what_is_not_allowed_is_named() {
        let error = |initial, factor, max| Backoff::new(initial, factor, max, Jitter::Full).unwrap_err().to_string();
        assert_eq!(error(f64::NAN, 2.0, 60.0), "initial must be a number of seconds from 0 to 1e9, not NaN");
        assert_eq!(error(-0.5, 2.0, 60.0), "initial must be a number of seconds from 0 to 1e9, not -0.5");
        assert_eq!(error(1.0, 2.0, f64::INFINITY), "max_delay must be a number of seconds from 0 to 1e9, not inf");
        assert_eq!(error(61.0, 2.0, 60.0), "initial must be at most max_delay (60 s), not 61");
        assert_eq!(error(1.0, 0.9, 60.0), "factor must be a finite number, at least 1, not 0.9");
        assert_eq!(error(1.0, f64::NAN, 60.0), "factor must be a finite number, at least 1, not NaN");
        assert_eq!(
            "Full".parse::<Jitter>().unwrap_err().to_string(),
            r#"jitter must be "full", "equal", "decorrelated" or "none", not "Full""#
        );
    }
}
