//! How fast a rate runs below what was configured, because the provider is overloaded or the quota is shared with others.
//!
//! *Overload* without numbers: the speed falls multiplicatively and is restored additively, as in TCP (Chiu and Jain,
//! 1989), and only while calls in fact use what there is: an app that sends little learns nothing from its success.
//!
//! *Neighbours* on the same key, seen in what the provider says is left: the speed follows the level of the provider's
//! own bucket. While that is above a fifth of the most that was ever left, the rate runs at full speed; below, in
//! proportion. Whatever the number of processes, their speeds then settle where together they use just what flows in,
//! without a word between them.

use crate::clock::{Nanos, SECOND};
use crate::words::Carrier;

/// A speed in thousandths of what was configured.
pub type Permille = u64;

/// Full speed.
pub const FULL: Permille = 1_000;

/// What an overload leaves of the speed. Refusals of one burst arrive together and count once.
const DECREASE: Permille = 700;
/// Below this no overload slows a rate: an outage must not be followed by a long way up.
const FLOOR: Permille = 250;
/// How much speed comes back with each second of calls that use what there is.
const INCREASE: Permille = 100;
/// Refusals within this count as one.
const AT_ONCE: Nanos = SECOND;
/// Below this share of its amount the level of a bucket that is shared slows the rate.
const TARGET: Permille = 200;
/// Neighbours never slow a rate below this: who sends nothing hears nothing.
const LEAST: Permille = 100;

/// The speed of one rate.
#[derive(Clone, Debug)]
pub struct Pace {
    overload: Permille,
    refused_at: Nanos,
    neighbours: Permille,
    neighbours_at: Nanos,
    /// What was charged since the speed was last restored.
    sent: u64,
    restored_at: Nanos,
}

impl Default for Pace {
    fn default() -> Self {
        Self { overload: FULL, refused_at: 0, neighbours: FULL, neighbours_at: 0, sent: 0, restored_at: 0 }
    }
}

impl Pace {
    /// The speed now: the lower of the two.
    pub fn speed(&self) -> Permille {
        self.overload.min(self.neighbours)
    }

    /// All of it.
    #[inline]
    pub(crate) fn carry(&mut self, carrier: &mut impl Carrier) {
        let Self { overload, refused_at, neighbours, neighbours_at, sent, restored_at } = self;
        for word in [overload, refused_at, neighbours, neighbours_at, sent, restored_at] {
            carrier.word(word);
        }
    }

    /// Whether its numbers can be.
    pub(crate) fn is_sound(&self) -> bool {
        self.overload <= FULL && self.neighbours <= FULL
    }

    /// Counts what is charged.
    #[inline]
    pub fn sent(&mut self, cost: u64) {
        self.sent = self.sent.saturating_add(cost);
    }

    /// The provider is overloaded.
    pub fn overloaded(&mut self, now: Nanos) {
        if self.refused_at == 0 || now >= self.refused_at.saturating_add(AT_ONCE) {
            self.overload = (self.overload * DECREASE / FULL).max(FLOOR);
            self.refused_at = now.max(1);
        }
        self.sent = 0;
        self.restored_at = now;
    }

    /// A call succeeded, of a rate that lets `amount` leave per `period` at full speed. Gives whether the speed changed.
    pub fn succeeded(&mut self, amount: u64, period: Nanos, now: Nanos) -> bool {
        let elapsed = now.saturating_sub(self.restored_at);
        if self.overload == FULL || elapsed < SECOND {
            return false;
        }
        // What could have left at the present speed; an app that used less than half of it sends little.
        let possible = u128::from(amount) * u128::from(elapsed) * u128::from(self.speed());
        let used = u128::from(self.sent) * u128::from(period) * u128::from(FULL);
        let busy = used.saturating_mul(2) >= possible;
        self.sent = 0;
        self.restored_at = now;
        if busy {
            let back = u128::from(INCREASE) * u128::from(elapsed.min(10 * SECOND)) / u128::from(SECOND);
            self.overload = (self.overload + Permille::try_from(back).unwrap_or(FULL)).min(FULL);
        }
        busy
    }

    /// Whether neighbours were seen within the last `period`.
    #[inline]
    pub fn has_neighbours(&self, period: Nanos, now: Nanos) -> bool {
        self.neighbours_at > 0 && now < self.neighbours_at.saturating_add(period)
    }

    /// The provider says how much is left, of the `most` that it ever said; `shared` says whether that is less than this
    /// process's own use explains. Once seen, neighbours are taken to be there for another `period`.
    pub fn left(&mut self, left: u64, most: u64, shared: bool, period: Nanos, now: Nanos) {
        if shared {
            self.neighbours_at = now.max(1);
        }
        let level = u128::from(left) * u128::from(FULL) / u128::from(most.max(1));
        let level = Permille::try_from(level).unwrap_or(FULL).min(FULL);
        self.neighbours =
            if self.has_neighbours(period, now) { (level * FULL / TARGET).clamp(LEAST, FULL) } else { FULL };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overload_slows_once_for_refusals_that_come_together_and_never_to_a_halt() {
        let mut pace = Pace::default();
        for _ in 0..100 {
            pace.overloaded(SECOND);
        }
        assert_eq!(pace.speed(), 700);
        for second in 2..100 {
            pace.overloaded(second * SECOND);
        }
        assert_eq!(pace.speed(), FLOOR);
    }

    #[test]
    fn speed_comes_back_only_to_those_who_use_it() {
        let mut pace = Pace::default();
        for second in 1..10 {
            pace.overloaded(second * SECOND);
        }
        for second in 10..30 {
            pace.sent(1); // of ten a second
            pace.succeeded(600, 60 * SECOND, second * SECOND);
        }
        assert_eq!(pace.speed(), FLOOR);
        for second in 30..39 {
            pace.sent(10);
            pace.succeeded(600, 60 * SECOND, second * SECOND);
        }
        assert_eq!(pace.speed(), FULL);
    }

    #[test]
    fn neighbours_slow_in_proportion_to_what_is_left_and_are_forgotten() {
        let mut pace = Pace::default();
        pace.left(100, 1_000, false, 60 * SECOND, SECOND);
        assert_eq!(pace.speed(), FULL); // this process's own use explains it
        pace.left(100, 1_000, true, 60 * SECOND, SECOND);
        assert_eq!(pace.speed(), 500);
        pace.left(0, 1_000, false, 60 * SECOND, 2 * SECOND);
        assert_eq!(pace.speed(), LEAST);
        pace.left(300, 1_000, false, 60 * SECOND, 3 * SECOND);
        assert_eq!(pace.speed(), FULL);
        pace.left(100, 1_000, false, 60 * SECOND, 62 * SECOND);
        assert_eq!(pace.speed(), FULL);
    }
}
