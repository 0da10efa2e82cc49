//! How servers count and refuse: the enforcers of the providers, each as strict as it can be.

use std::collections::VecDeque;

use penstock::clock::Nanos;
use penstock::cost::Cost;
use penstock::cost::Dimension;

/// What one server allows of one dimension, counted at arrival. A refused call is not counted.
pub struct Server {
    dimension: Dimension,
    limit: u64,
    period: Nanos,
    count: Count,
    pub accepted: u64,
    pub refused: u64,
}

enum Count {
    /// Full at first, `limit` deep, refilled evenly; kept in units of 1/period.
    Bucket { level: u128, last: Nanos },
    /// Starts anew every period, from a phase.
    Fixed { phase: Nanos, window: u64, used: u64 },
    /// All arrivals of the last period.
    Rolling { log: VecDeque<(Nanos, u64)>, used: u64 },
}

impl Server {
    fn new(dimension: Dimension, limit: u64, period: Nanos, count: Count) -> Self {
        Self { dimension, limit, period, count, accepted: 0, refused: 0 }
    }

    pub fn bucket(dimension: Dimension, limit: u64, period: Nanos) -> Self {
        let level = u128::from(limit) * u128::from(period);
        Self::new(dimension, limit, period, Count::Bucket { level, last: 0 })
    }

    pub fn fixed(dimension: Dimension, limit: u64, period: Nanos, phase: Nanos) -> Self {
        Self::new(dimension, limit, period, Count::Fixed { phase, window: 0, used: 0 })
    }

    pub fn rolling(dimension: Dimension, limit: u64, period: Nanos) -> Self {
        Self::new(dimension, limit, period, Count::Rolling { log: VecDeque::new(), used: 0 })
    }

    /// A call arrives; arrivals come in the order of time.
    pub fn arrive(&mut self, at: Nanos, cost: &Cost) -> bool {
        let amount = cost.get(self.dimension);
        let fits = match &mut self.count {
            Count::Bucket { level, last } => {
                let full = u128::from(self.limit) * u128::from(self.period);
                *level = (*level + u128::from(at - *last) * u128::from(self.limit)).min(full);
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
        if fits {
            self.accepted += 1;
        } else {
            self.refused += 1;
        }
        fits
    }
}
