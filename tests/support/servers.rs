//! How servers count and refuse: the enforcers of the providers, each as strict as it can be.

use std::collections::VecDeque;

use penstock::clock::Nanos;
use penstock::cost::{Cost, Dimension};

/// What one server allows of one dimension, counted at arrival. A refused call is not counted.
pub struct Server {
    dimension: Dimension,
    limit: u64,
    period: Nanos,
    count: Count,
    /// How many calls it has refused, and how many came.
    pub refused: u64,
    pub arrived: u64,
    /// The amount that it has accepted, from `since` on.
    pub accepted: u64,
    since: Nanos,
}

enum Count {
    /// Full at first, refilled evenly; kept in units of 1/period.
    Bucket { full: u128, level: u128, last: Nanos },
    /// Starts anew every period, from a phase.
    Fixed { phase: Nanos, window: u64, used: u64 },
    /// All arrivals of the last period.
    Rolling { log: VecDeque<(Nanos, u64)>, used: u64 },
}

impl Server {
    fn new(dimension: Dimension, limit: u64, period: Nanos, count: Count) -> Self {
        Self { dimension, limit, period, count, refused: 0, arrived: 0, accepted: 0, since: 0 }
    }

    /// Counts what it accepts from that time on only.
    pub fn measured_from(self, since: Nanos) -> Self {
        Self { since, ..self }
    }

    /// The share of the limit that was used from the start of the measurement until `end`.
    #[allow(clippy::cast_precision_loss)] // for people
    pub fn utilisation(&self, end: Nanos) -> f64 {
        let most = self.limit as f64 * (end - self.since) as f64 / self.period as f64;
        self.accepted as f64 / most
    }

    /// The share of the calls that it refused.
    #[allow(clippy::cast_precision_loss)] // for people
    pub fn refusals(&self) -> f64 {
        self.refused as f64 / self.arrived.max(1) as f64
    }

    pub fn bucket(dimension: Dimension, limit: u64, period: Nanos) -> Self {
        Self::small_bucket(dimension, limit, period, limit)
    }

    /// A bucket that holds no more than `burst`.
    pub fn small_bucket(dimension: Dimension, limit: u64, period: Nanos, burst: u64) -> Self {
        let full = u128::from(burst) * u128::from(period);
        Self::new(dimension, limit, period, Count::Bucket { full, level: full, last: 0 })
    }

    pub fn fixed(dimension: Dimension, limit: u64, period: Nanos, phase: Nanos) -> Self {
        Self::new(dimension, limit, period, Count::Fixed { phase, window: 0, used: 0 })
    }

    pub fn rolling(dimension: Dimension, limit: u64, period: Nanos) -> Self {
        Self::new(dimension, limit, period, Count::Rolling { log: VecDeque::new(), used: 0 })
    }

    /// A call arrives; arrivals come in the order of time.
    pub fn arrive(&mut self, at: Nanos, cost: &Cost) {
        let amount = cost.get(self.dimension);
        let fits = match &mut self.count {
            Count::Bucket { full, level, last } => {
                *level = (*level + u128::from(at - *last) * u128::from(self.limit)).min(*full);
                *last = at;
                let needed = u128::from(amount) * u128::from(self.period);
                let fits = *level >= needed;
                *level -= if fits { needed } else { 0 };
                fits
            }
            Count::Fixed { phase, window, used } => {
                let current = (at + *phase) / self.period;
                if current != *window {
                    (*window, *used) = (current, 0);
                }
                let fits = *used + amount <= self.limit;
                *used += if fits { amount } else { 0 };
                fits
            }
            Count::Rolling { log, used } => {
                while log.front().is_some_and(|&(then, _)| then + self.period <= at) {
                    *used -= log.pop_front().map_or(0, |(_, amount)| amount);
                }
                let fits = *used + amount <= self.limit;
                if fits {
                    log.push_back((at, amount));
                    *used += amount;
                }
                fits
            }
        };
        self.arrived += 1;
        self.refused += u64::from(!fits);
        self.accepted += if fits && at >= self.since { amount } else { 0 };
    }
}
