//! The token bucket of one rate: when a cost fits, charge, refund, debt.
//!
//! The level is kept in units of 1/period of a token, in which one nanosecond refills exactly `amount`. So no rate is
//! rounded, and the path of an admission has multiplications only; the one division is paid by those who must wait.

use crate::clock::{Nanos, SECOND};
use crate::pace::{FULL, Permille};
use crate::rate::Rate;
use crate::words::Carrier;

/// How late a timer may be before quota is lost, where the burst is too small to save it up. What a call is late by, it is
/// early by for those behind it: so no more than the spread of a network's delay.
const LATE: Nanos = SECOND / 20;

/// A token bucket. Starts full.
#[derive(Clone, Debug)]
pub struct Bucket {
    amount: i128,
    /// What a nanosecond refills at the present speed; at full speed the amount.
    flow: i128,
    period: i128,
    capacity: i128,
    level: i128,
    last: Nanos,
}

impl Bucket {
    /// A full bucket, as of `now`.
    pub fn new(rate: &Rate, now: Nanos) -> Self {
        let period = i128::from(rate.period());
        let capacity = i128::from(rate.burst()) * period;
        let amount = i128::from(rate.amount());
        Self { amount, flow: amount, period, capacity, level: capacity, last: now }
    }

    /// The level at `at`; the past is not reconstructed: before the last charge it is the level after it.
    #[inline]
    fn level_at(&self, at: Nanos) -> i128 {
        let elapsed = i128::from(at.saturating_sub(self.last));
        // 2^64 ns of 10^15 tokens is below 2^114, and no level is deeper than 2^120: nothing here can overflow.
        // A grant comes on a whole nanosecond, up to one late; what that one refills is kept beyond the capacity, or a
        // burst of 1 at 7e9 per minute would run 5 % slow.
        (self.level + elapsed * self.flow).min(self.capacity + self.amount - 1)
    }

    #[inline]
    fn move_to(&mut self, at: Nanos) {
        self.level = self.level_at(at);
        self.last = self.last.max(at);
    }

    /// Whether `cost` fits at `at`. A cost above the burst fits when the bucket is full.
    #[inline]
    pub fn fits(&self, cost: u64, at: Nanos) -> bool {
        cost == 0 || self.level_at(at) >= self.needed(cost)
    }

    #[inline]
    fn needed(&self, cost: u64) -> i128 {
        (i128::from(cost) * self.period).min(self.capacity)
    }

    /// The earliest time, not before `from`, at which `cost` fits if nothing else is charged.
    pub fn earliest(&self, cost: u64, from: Nanos) -> Nanos {
        if cost == 0 {
            return from;
        }
        self.when(self.needed(cost), from)
    }

    /// The earliest time at which `cost` fits behind `ahead`, which is charged as fast as the bucket allows: exact as
    /// long as calls wait, a lower bound otherwise.
    pub fn earliest_behind(&self, ahead: u64, cost: u64, from: Nanos) -> Nanos {
        if cost == 0 {
            return from;
        }
        self.when(i128::from(ahead) * self.period + self.needed(cost), from)
    }

    fn when(&self, needed: i128, from: Nanos) -> Nanos {
        let start = from.max(self.last);
        let short = needed - self.level_at(start);
        if short <= 0 {
            return start.max(from);
        }
        let wait = short / self.flow + i128::from(short % self.flow != 0);
        start.saturating_add(u64::try_from(wait).unwrap_or(u64::MAX))
    }

    /// Takes `cost` out at `at`, into debt if need be.
    #[inline]
    pub fn charge(&mut self, cost: u64, at: Nanos) {
        self.move_to(at);
        self.level = (self.level - i128::from(cost) * self.period).max(-FLOOR);
    }

    /// Takes `cost` out for a call that was due at `due` and leaves at `now`, which may be later: a timer woke late, or the
    /// whole process stood still. What flowed in meanwhile is saved up as in any bucket, up to the capacity; or, where that
    /// holds little more than this call, for so long as timers are late, so that they lose no quota.
    #[inline]
    pub fn charge_late(&mut self, cost: u64, due: Nanos, now: Nanos) {
        self.move_to(due);
        let late = i128::from(now.saturating_sub(self.last));
        if late > 0 {
            let most = self.capacity.max(self.needed(cost) + self.flow * i128::from(LATE));
            let spilled = self.level + late * self.flow - most;
            if spilled > 0 {
                let lost = (spilled / self.flow + i128::from(spilled % self.flow != 0)).min(late);
                self.last += u64::try_from(lost).unwrap_or(0);
            }
        }
        self.level = (self.level - i128::from(cost) * self.period).max(-FLOOR);
    }

    /// Puts `amount` back, up to the capacity.
    pub fn refund(&mut self, amount: u64, now: Nanos) {
        self.move_to(now);
        self.level = (self.level + i128::from(amount) * self.period).min(self.capacity);
    }

    /// Refills at this many thousandths of the rate from here on.
    pub fn set_speed(&mut self, speed: Permille, now: Nanos) {
        self.move_to(now);
        self.flow = (self.amount * i128::from(speed) / i128::from(FULL)).max(1);
    }

    /// Holds just `amount` from now on.
    pub fn set_level(&mut self, amount: u64, now: Nanos) {
        self.move_to(now);
        self.level = (i128::from(amount) * self.period).min(self.capacity);
    }

    /// Holds at most `amount` at `at`, and refills from there: what could have left before that is not saved up.
    pub fn drain(&mut self, amount: u64, at: Nanos) {
        self.move_to(at);
        self.level = self.level.min(i128::from(amount) * self.period);
    }

    /// Whole tokens that could leave now; negative when in debt.
    pub fn available(&self, now: Nanos) -> i64 {
        let tokens = self.level_at(now.max(self.last)).div_euclid(self.period);
        i64::try_from(tokens).unwrap_or(if tokens < 0 { i64::MIN } else { i64::MAX })
    }

    /// Whether the bucket is full at `now`, that is, remembers nothing.
    pub fn is_full(&self, now: Nanos) -> bool {
        self.level_at(now) >= self.capacity
    }

    /// What is not said by the rate.
    #[inline]
    pub(crate) fn carry(&mut self, carrier: &mut impl Carrier) {
        carrier.wide(&mut self.flow);
        carrier.wide(&mut self.level);
        carrier.word(&mut self.last);
    }

    /// Whether its numbers can be.
    pub(crate) fn is_sound(&self) -> bool {
        (1..=self.amount).contains(&self.flow) && self.level >= -FLOOR && self.level <= self.capacity + self.amount
    }

    /// Goes on as another rate. What was spent stays spent, to the part of a token, so that changing often forgives
    /// nothing; a larger burst starts with the room that the smaller one had.
    pub fn change(&mut self, rate: &Rate, now: Nanos) {
        self.move_to(now);
        let full = Self::new(rate, now);
        let spent = self.capacity - self.level;
        let (tokens, part) = (spent.div_euclid(self.period), spent.rem_euclid(self.period));
        // A part is below 2^55 units, and so is a period: their product is far from the end of the integer.
        let part = (part * full.period + self.period - 1).div_euclid(self.period);
        self.level = (full.capacity - tokens.saturating_mul(full.period).saturating_add(part)).max(-FLOOR);
        self.amount = full.amount;
        self.flow = full.flow;
        self.period = full.period;
        self.capacity = full.capacity;
    }
}

/// The deepest debt, far beyond any that could be paid back, and far from the end of the integer.
const FLOOR: i128 = 1 << 120;

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(amount: u64, period: Nanos, burst: u64) -> Bucket {
        Bucket::new(&Rate::new(amount, period).unwrap().with_burst(burst).unwrap(), 0)
    }

    #[test]
    fn a_large_cost_leaves_when_the_bucket_is_full_and_leaves_a_debt() {
        let mut b = bucket(60, 60 * SECOND, 2);
        assert_eq!(b.earliest(30, 0), 0);
        b.charge(30, 0);
        assert_eq!(b.available(0), -28);
        assert_eq!(b.earliest(1, 0), 29 * SECOND);
        assert_eq!(b.earliest(30, 0), 30 * SECOND); // full again
        assert_eq!(b.earliest_behind(5, 1, 0), 34 * SECOND);
    }

    #[test]
    fn the_time_that_is_told_is_the_first_at_which_the_cost_fits() {
        // 7e9 per minute is 8.571428... ns a token: whole-nanosecond cells would be 5 % off.
        let mut b = bucket(7_000_000_000, 60 * SECOND, 1);
        b.charge(1, 0);
        assert_eq!(b.earliest(1, 0), 9);
        assert!(b.fits(1, 9) && !b.fits(1, 8));
        let mut at = 0;
        for _ in 0..7_000 {
            at = b.earliest(1, at);
            b.charge(1, at);
        }
        assert_eq!(at, 60_000); // the 7,000th token of a bucket that was empty at 0
    }

    #[test]
    fn a_refund_never_overfills_and_a_debt_has_a_floor() {
        let mut b = bucket(10, SECOND, 5);
        b.charge(3, 0);
        b.refund(100, 0);
        assert_eq!(b.available(0), 5);
        for _ in 0..1_000 {
            b.charge(u64::MAX, 0);
        }
        assert!(b.available(0) < 0);
        assert!(b.earliest(1, 0) > 0);
        b.refund(u64::MAX, u64::MAX);
    }

    #[test]
    fn a_change_keeps_what_was_spent() {
        let mut b = bucket(10, SECOND, 10);
        b.charge(8, 0);
        b.change(&Rate::new(100, SECOND).unwrap().with_burst(20).unwrap(), 0);
        assert_eq!(b.available(0), 12);
        b.change(&Rate::new(10, SECOND).unwrap().with_burst(5).unwrap(), 0);
        assert_eq!(b.available(0), -3);
    }
}
