//! All rates of a limiter: the earliest time for a cost, charge all or none, settle, cooldown.

mod account;
mod answers;
mod shared;

use std::fmt;
use std::sync::Arc;

use crate::clock::Nanos;
use crate::cost::{Cost, Dimension};
use crate::rate::Rate;
use crate::window::Ring;

use account::Account;
pub use answers::{Learned, Told};
pub(crate) use shared::MOST_RATES;
pub use shared::{Counted, Left};

/// A cost that no wait can satisfy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oversize {
    /// The dimension that is short.
    pub dimension: Dimension,
    /// What the call costs in it.
    pub cost: u64,
    /// The largest cost that its rates admit.
    pub limit: u64,
}

impl fmt::Display for Oversize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dimension, cost, limit } = self;
        write!(f, "a cost of {cost} {dimension} exceeds the limit of {limit}: no wait can satisfy it")
    }
}

impl std::error::Error for Oversize {}

/// How one rate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// What the rate counts.
    pub dimension: Dimension,
    /// The rate itself.
    pub rate: Rate,
    /// What could leave now, negative when in debt.
    pub available: i64,
    /// What could leave now without the pacing of the burst: the room in the window. The amount, without a guard.
    pub window: u64,
}

/// The rates of a limiter, charged together or not at all.
#[derive(Clone, Debug)]
pub struct Ledger {
    accounts: Vec<Account>,
    jitter: Option<Nanos>,
    cooldown: Nanos,
    /// Where windows are kept, if not here.
    rings: Vec<Arc<dyn Ring>>,
    /// How often the rates were changed.
    edition: u64,
}

impl Ledger {
    /// A ledger of these rates, all full. `jitter` is the spread of the network's delay in nanoseconds; where it is
    /// not given each rate assumes its own ([`Rate::default_jitter`]).
    pub fn new(rates: &[(Dimension, Rate)], jitter: Option<Nanos>, now: Nanos) -> Self {
        let accounts = rates.iter().map(|&(dimension, rate)| Account::new(dimension, rate, jitter, now)).collect();
        Self { accounts, jitter, cooldown: 0, rings: Vec::new(), edition: 0 }
    }

    /// Whether there is no rate at all.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// Whether there is a rate of this dimension.
    pub fn counts(&self, dimension: Dimension) -> bool {
        self.accounts.iter().any(|account| account.dimension == dimension)
    }

    /// Whether no wait can satisfy `cost`, and which dimension says so.
    ///
    /// # Errors
    /// [`Oversize`] for the first rate whose amount is below the cost.
    #[inline]
    pub fn check(&self, cost: &Cost) -> Result<(), Oversize> {
        for account in &self.accounts {
            let amount = cost.get(account.dimension);
            if amount > account.rate.amount() {
                let limits = self.accounts.iter().filter(|other| other.dimension == account.dimension);
                let limit = limits.map(|other| other.rate.amount()).min().unwrap_or(0);
                return Err(Oversize { dimension: account.dimension, cost: amount, limit });
            }
        }
        Ok(())
    }

    /// Whether `cost` fits at `now` in every rate.
    #[inline]
    pub fn fits(&mut self, cost: &Cost, now: Nanos) -> bool {
        if now < self.cooldown {
            return false;
        }
        for account in &mut self.accounts {
            let amount = cost.get(account.dimension);
            if amount == 0 {
                continue;
            }
            if now < account.cooldown || !account.bucket.fits(amount, now) || !account.neighbours_leave(amount, now) {
                return false;
            }
            if let Some(window) = account.guard_mut() {
                window.expire(now);
                if !window.fits(amount) {
                    return false;
                }
            }
        }
        true
    }

    /// The time at which a call that has waited since `from` is due: the earliest at which `cost` fits in every rate.
    /// It may lie before `now`, when a timer woke late.
    pub fn due(&mut self, cost: &Cost, from: Nanos, now: Nanos) -> Nanos {
        let mut due = from.max(self.cooldown);
        for account in &mut self.accounts {
            due = due.max(account.due(cost.get(account.dimension), from, now));
        }
        due
    }

    /// The earliest time at which `cost` can leave behind `ahead`, if nothing is given back meanwhile.
    pub fn earliest_behind(&mut self, ahead: &Cost, cost: &Cost, now: Nanos) -> Nanos {
        let mut at = now.max(self.cooldown);
        for account in &mut self.accounts {
            if let Some(window) = account.guard_mut() {
                window.expire(now);
            }
            let (ahead, cost) = (ahead.get(account.dimension), cost.get(account.dimension));
            at = at.max(account.earliest_behind(ahead, cost, now));
        }
        at
    }

    /// Charges `cost` in every rate: the buckets as of `due`, as far as they save up, the guards as of `now`.
    #[inline]
    pub fn charge(&mut self, cost: &Cost, due: Nanos, now: Nanos) {
        for account in &mut self.accounts {
            account.charge(cost.get(account.dimension), due, now);
        }
    }

    /// Replaces a cost that was charged at `charged_at` by the actual one. What was too much is given back into the
    /// window that was charged, if it is not over; what was too little is taken now, into debt if need be.
    pub fn settle(&mut self, charged: &Cost, actual: &Cost, charged_at: Nanos, now: Nanos) {
        for account in &mut self.accounts {
            let (charged, actual) = (charged.get(account.dimension), actual.get(account.dimension));
            account.settle(charged, actual, charged_at, now);
        }
    }

    /// Replaces the rates of one dimension; no rate means that it is no longer counted. A rate that stays keeps what
    /// was charged to it, wherever it is named; one of the same period goes on from there; then any other.
    pub fn update(&mut self, dimension: Dimension, rates: &[Rate], now: Nanos) {
        let mut fresh = rates.to_vec();
        let mut next: Vec<Option<Rate>> = vec![None; self.accounts.len()];
        let alike: [fn(&Rate, &Rate) -> bool; 3] = [|a, b| a == b, |a, b| a.period() == b.period(), |_, _| true];
        for alike in alike {
            let waiting = self.accounts.iter().zip(&mut next);
            for (account, next) in waiting.filter(|(account, next)| account.dimension == dimension && next.is_none()) {
                let found = fresh.iter().position(|rate| alike(rate, &account.configured));
                *next = found.map(|index| fresh.remove(index));
            }
        }
        let (jitter, rings, mut next) = (self.jitter, &self.rings, next.into_iter());
        self.accounts.retain_mut(|account| {
            let next = next.next().flatten();
            if account.dimension != dimension {
                return true;
            }
            let Some(rate) = next else { return false };
            if rate != account.configured {
                account.configured = rate;
                account.change(rate, jitter, now);
            }
            true
        });
        for rate in fresh {
            let mut account = Account::new(dimension, rate, jitter, now);
            let free = (0..rings.len()).find(|&ring| self.accounts.iter().all(|other| other.ring != ring));
            if free.is_none() && !rings.is_empty() {
                break; // whoever configures rates has asked whether there is a place
            }
            account.keep_in(rings, free.unwrap_or_default());
            self.accounts.push(account);
        }
        self.edition += 1;
    }

    /// How long the slowest rate takes to serve `cost`, in nanoseconds, at least 1: what a call weighs when keys share.
    pub fn service_time(&self, cost: &Cost) -> Nanos {
        let times = self.accounts.iter().map(|account| account.rate.service_time(cost.get(account.dimension)));
        times.max().unwrap_or(0).max(1)
    }

    /// How each rate stands at `now`.
    pub fn levels(&self, now: Nanos) -> Vec<Level> {
        let level = |account: &Account| {
            let paced = account.bucket.available(now);
            let window = account.guard().map_or(account.rate.amount(), |window| window.available(now));
            let available = paced.min(i64::try_from(window).unwrap_or(i64::MAX));
            Level { dimension: account.dimension, rate: account.rate, available, window }
        };
        self.accounts.iter().map(level).collect()
    }

    /// The rates that were configured.
    pub(crate) fn rates(&self) -> Vec<(Dimension, Rate)> {
        self.accounts.iter().map(|account| (account.dimension, account.configured)).collect()
    }

    /// Whether the ledger remembers nothing: it could be made anew without a difference.
    pub fn is_idle(&self, now: Nanos) -> bool {
        let idle = |account: &Account| {
            account.bucket.is_full(now) && account.guard().is_none_or(|window| window.is_empty(now))
        };
        self.cooldown <= now && self.accounts.iter().all(idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND;

    fn rate(amount: u64, seconds: u64) -> Rate {
        Rate::new(amount, seconds * SECOND).unwrap()
    }

    fn ledger() -> Ledger {
        let rates = [
            (Dimension::Requests, rate(60, 60).with_burst(10).unwrap()),
            (Dimension::Tokens, rate(6_000, 60).with_burst(1_000).unwrap()),
        ];
        Ledger::new(&rates, Some(0), 0)
    }

    fn tokens(tokens: u64) -> Cost {
        Cost { requests: 1, tokens, ..Cost::default() }
    }

    #[test]
    fn the_scarcest_dimension_decides_and_nothing_is_half_charged() {
        let mut l = ledger();
        assert!(l.fits(&tokens(1_000), 0));
        l.charge(&tokens(1_000), 0, 0);
        assert!(!l.fits(&tokens(100), 0));
        assert!(l.fits(&tokens(0), 0)); // requests have room, and a call without tokens does not wait for them
        assert_eq!(l.due(&tokens(100), 0, 0), SECOND);
        assert_eq!(l.levels(0)[0].available, 9);
    }

    #[test]
    fn a_cost_beyond_the_smallest_amount_is_told_at_once() {
        let mut l = ledger();
        l.update(Dimension::Tokens, &[rate(6_000, 60), rate(5_000, 86_400)], 0);
        let oversize = l.check(&tokens(5_500)).unwrap_err();
        assert_eq!(oversize, Oversize { dimension: Dimension::Tokens, cost: 5_500, limit: 5_000 });
        assert!(l.check(&tokens(5_000)).is_ok());
    }

    #[test]
    fn settling_refunds_into_the_charged_window_or_debits_now() {
        let mut l = ledger();
        l.charge(&tokens(1_000), 0, 0);
        l.settle(&tokens(1_000), &tokens(400), 0, SECOND);
        assert_eq!(l.levels(SECOND)[1].available, 700);
        assert_eq!(l.levels(SECOND)[1].window, 5_600);
        l.settle(&tokens(400), &tokens(2_400), 0, SECOND);
        assert_eq!(l.levels(SECOND)[1].available, -1_300);
        assert_eq!(l.levels(SECOND)[1].window, 3_600);
        l.settle(&tokens(1_000), &tokens(0), 0, 60 * SECOND); // that window is over
        assert_eq!(l.levels(60 * SECOND)[1].window, 4_000);
    }

    #[test]
    fn a_dropped_rate_no_longer_counts_and_a_new_one_starts_full() {
        let mut l = ledger();
        l.charge(&tokens(1_000), 0, 0);
        l.update(Dimension::Tokens, &[], 0);
        assert!(!l.counts(Dimension::Tokens) && l.fits(&tokens(1_000_000), 0));
        l.update(Dimension::InputTokens, &[rate(100, 60)], 0);
        assert!(l.counts(Dimension::InputTokens));
        assert!(!l.is_idle(0));
        assert!(l.is_idle(61 * SECOND));
    }

    #[test]
    fn a_throttle_empties_the_rate_that_was_short_and_no_other() {
        let day = Rate::new(10_000, 86_400 * SECOND).unwrap().with_burst(10_000).unwrap();
        let minute = rate(600, 60).with_burst(600).unwrap();
        let rates = [(Dimension::Requests, day), (Dimension::Requests, minute)];
        let mut l = Ledger::new(&rates, Some(0), 0);
        let available = |l: &Ledger, at| l.levels(at).iter().map(|level| level.available).collect::<Vec<_>>();
        l.cool_down(SECOND);
        assert_eq!(available(&l, SECOND), [10_000, 600]);
        l.cool_down_in(Dimension::Requests, None, 2 * SECOND, None);
        assert_eq!(available(&l, 2 * SECOND), [10_000, 10]);
        l.cool_down_in(Dimension::Requests, Some(60 * SECOND), 3 * SECOND, Some(50));
        assert_eq!(available(&l, 3 * SECOND), [10_000, 20]);
        l.cool_down_in(Dimension::Requests, Some(86_400 * SECOND), 4 * SECOND, Some(1));
        assert_eq!(available(&l, 4 * SECOND), [1, 30]);
        l.cool_down_in(Dimension::Requests, Some(60 * SECOND), 5 * SECOND, Some(3));
        assert_eq!(available(&l, 5 * SECOND), [1, 3]);
        assert!(!l.fits(&tokens(0), 3 * SECOND));
    }

    #[test]
    fn a_cooldown_is_never_shortened() {
        let mut l = ledger();
        l.cool_down(5 * SECOND);
        l.cool_down(SECOND);
        assert!(!l.fits(&tokens(1), 5 * SECOND - 1));
        assert_eq!(l.due(&tokens(1), 0, 0), 5 * SECOND);
        assert!(l.fits(&tokens(1), 5 * SECOND));
    }
}
