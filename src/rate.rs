//! An amount per period of one dimension: its meaning and its limits.

use std::fmt;

use crate::clock::{Nanos, SECOND};
use crate::words::Carrier;

/// A rate: a token bucket of capacity `burst` that is refilled at `amount / period`, and, unless `window` is off, a
/// guard by which no more than `amount` leaves in any window of `period` plus the network's jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    amount: u64,
    period: Nanos,
    burst: u64,
    window: bool,
}

/// Why a [`Rate`] cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RateError {
    /// The amount is outside 1 to [`Rate::MAX_AMOUNT`].
    Amount(u64),
    /// The period is outside [`Rate::MIN_PERIOD`] to [`Rate::MAX_PERIOD`]; in nanoseconds.
    Period(Nanos),
    /// The burst is outside 1 to the amount.
    Burst {
        /// The burst that was asked for.
        burst: u64,
        /// The amount it may not exceed.
        amount: u64,
    },
}

impl fmt::Display for RateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Amount(amount) => {
                write!(f, "amount must be a whole number from 1 to {}, not {amount}", Rate::MAX_AMOUNT)
            }
            Self::Period(period) => {
                write!(f, "per must be from 0.001 seconds to 366 days, not {} seconds", Seconds(*period))
            }
            Self::Burst { burst, amount } => {
                write!(f, "burst must be a whole number from 1 to the amount ({amount}), not {burst}")
            }
        }
    }
}

impl std::error::Error for RateError {}

impl Rate {
    /// The largest amount. Ten billion per minute is 10^10; this leaves room.
    pub const MAX_AMOUNT: u64 = 1_000_000_000_000_000;
    /// The shortest period: a millisecond.
    pub const MIN_PERIOD: Nanos = SECOND / 1_000;
    /// The longest period: 366 days.
    pub const MAX_PERIOD: Nanos = 366 * 86_400 * SECOND;

    /// `amount` per `period` with the default burst (one second's worth, at least 1) and the window guard.
    ///
    /// # Errors
    /// [`RateError`] when the amount or the period is out of range.
    pub fn new(amount: u64, period: Nanos) -> Result<Self, RateError> {
        if !(1..=Self::MAX_AMOUNT).contains(&amount) {
            return Err(RateError::Amount(amount));
        }
        if !(Self::MIN_PERIOD..=Self::MAX_PERIOD).contains(&period) {
            return Err(RateError::Period(period));
        }
        let per_second = u128::from(amount) * u128::from(SECOND) / u128::from(period);
        let burst = u64::try_from(per_second).unwrap_or(u64::MAX).clamp(1, amount);
        Ok(Self { amount, period, burst, window: true })
    }

    /// The same rate with another burst.
    ///
    /// # Errors
    /// [`RateError::Burst`] unless it is 1 to the amount.
    pub fn with_burst(self, burst: u64) -> Result<Self, RateError> {
        if (1..=self.amount).contains(&burst) {
            Ok(Self { burst, ..self })
        } else {
            Err(RateError::Burst { burst, amount: self.amount })
        }
    }

    /// The same rate with the window guard on or off.
    #[must_use]
    pub fn with_window(self, window: bool) -> Self {
        Self { window, ..self }
    }

    /// The same rate with another amount, and a burst in proportion.
    pub fn with_amount(self, amount: u64) -> Option<Self> {
        let burst = u128::from(self.burst) * u128::from(amount) / u128::from(self.amount);
        let burst = u64::try_from(burst).unwrap_or(u64::MAX).max(1);
        let rate = Self::new(amount, self.period).ok()?.with_burst(burst.min(amount)).ok()?;
        Some(rate.with_window(self.window))
    }

    /// All of it; what comes must be looked at with [`Rate::checked`].
    pub(crate) fn carry(&mut self, carrier: &mut impl Carrier) {
        for word in [&mut self.amount, &mut self.period, &mut self.burst] {
            carrier.word(word);
        }
        carrier.flag(&mut self.window);
    }

    /// The same rate, if it can be.
    pub(crate) fn checked(self) -> Option<Self> {
        Some(Self::new(self.amount, self.period).ok()?.with_burst(self.burst).ok()?.with_window(self.window))
    }

    /// How much may leave in a period.
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// The period, in nanoseconds.
    pub fn period(&self) -> Nanos {
        self.period
    }

    /// How much may leave at once.
    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// Whether the window guard is on.
    pub fn window(&self) -> bool {
        self.window
    }

    /// The network jitter assumed where none is given: 1 % of the period, at most half a second.
    pub fn default_jitter(&self) -> Nanos {
        (self.period / 100).min(SECOND / 2)
    }

    /// How long the rate takes to serve `cost`, in nanoseconds: what a call weighs when keys share a limiter.
    pub fn service_time(&self, cost: u64) -> Nanos {
        let time = u128::from(cost) * u128::from(self.period) / u128::from(self.amount);
        u64::try_from(time).unwrap_or(u64::MAX)
    }
}

/// Nanoseconds, shown as seconds without trailing zeros.
pub(crate) struct Seconds(pub(crate) Nanos);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / SECOND, self.0 % SECOND);
        if part == 0 {
            write!(f, "{whole}")
        } else {
            let digits = format!("{part:09}");
            write!(f, "{whole}.{}", digits.trim_end_matches('0'))
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.period / SECOND {
            1 if self.period == SECOND => write!(f, "{}/s", self.amount),
            60 if self.period == 60 * SECOND => write!(f, "{}/min", self.amount),
            3_600 if self.period == 3_600 * SECOND => write!(f, "{}/h", self.amount),
            86_400 if self.period == 86_400 * SECOND => write!(f, "{}/day", self.amount),
            _ => write!(f, "{}/{}s", self.amount, Seconds(self.period)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_burst_is_one_second_of_the_rate_and_at_least_one() {
        let burst = |amount, seconds| Rate::new(amount, seconds * SECOND).unwrap().burst();
        assert_eq!(burst(600, 60), 10);
        assert_eq!(burst(50, 1), 50);
        assert_eq!(burst(3, 60), 1);
        assert_eq!(burst(1, 86_400), 1);
        assert_eq!(burst(10_000_000_000, 60), 166_666_666);
        assert_eq!(Rate::new(7, SECOND / 10).unwrap().burst(), 7);
    }

    #[test]
    fn what_cannot_be_is_told_with_its_value() {
        assert_eq!(
            Rate::new(0, SECOND).unwrap_err().to_string(),
            "amount must be a whole number from 1 to 1000000000000000, not 0"
        );
        assert_eq!(
            Rate::new(1, 1_000).unwrap_err().to_string(),
            "per must be from 0.001 seconds to 366 days, not 0.000001 seconds"
        );
        assert!(Rate::new(1, 367 * 86_400 * SECOND).is_err());
        assert!(Rate::new(Rate::MAX_AMOUNT + 1, SECOND).is_err());
        let rate = Rate::new(5, SECOND).unwrap();
        assert_eq!(
            rate.with_burst(6).unwrap_err().to_string(),
            "burst must be a whole number from 1 to the amount (5), not 6"
        );
        assert!(rate.with_burst(0).is_err());
    }

    #[test]
    fn rates_print_as_people_write_them() {
        let show = |amount, period| Rate::new(amount, period).unwrap().to_string();
        assert_eq!(show(50, SECOND), "50/s");
        assert_eq!(show(500, 60 * SECOND), "500/min");
        assert_eq!(show(7, 10 * SECOND), "7/10s");
        assert_eq!(show(7, SECOND / 4), "7/0.25s");
        assert_eq!(show(7, 86_400 * SECOND), "7/day");
    }
}
