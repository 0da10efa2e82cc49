//! What all calls of a limiter share.

use crate::clock::Nanos;
use crate::cost::Dimension;
use crate::ledger::Ledger;
use crate::pace::{FULL, Pace};
use crate::stats::Counts;
use crate::words::Carrier;

use super::Turn;

/// What the provider said of a quota that is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// When it resets, in milliseconds since 1970, if the provider said so.
    pub resets_at: Option<u64>,
    /// The dimension that is short, if the provider said so.
    pub dimension: Option<Dimension>,
}

/// A quota that is spent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    pub(crate) exhausted: Exhausted,
    /// When the provider said so: that calls succeed which left before is no news.
    pub(crate) since: Nanos,
    /// When it resets.
    pub(crate) until: Nanos,
    /// When to ask the provider again with one call.
    pub(crate) probe_at: Nanos,
}

/// Rates and what was charged to them, slots, a quota that is spent, and counts.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) ledger: Ledger,
    pub(crate) concurrency: u64,
    /// How many slots are taken.
    pub(crate) slots: u64,
    /// When the last slot came free while none was left.
    pub(crate) slot_freed: Nanos,
    pub(crate) spent: Option<Spent>,
    /// The speed of a gate without rates, which slows by its concurrency.
    pub(crate) pace: Pace,
    pub(crate) counts: Counts,
    /// The latest time that any decision was made at.
    pub(crate) last: Nanos,
    /// How many gates have calls that wait.
    pub(crate) gates_waiting: u64,
    /// Whose turn it is among those.
    pub(crate) turn: Turn,
    /// How often the rates or the concurrency were changed by their owner, or a quota was found spent.
    pub(crate) news: u64,
    /// Why the books are of no use: what is kept cannot be.
    pub(crate) broken: Option<&'static str>,
}

impl Books {
    /// Books in which nothing is used.
    pub(crate) fn new(ledger: Ledger, concurrency: Option<u64>, now: Nanos) -> Self {
        Self {
            ledger,
            concurrency: concurrency.unwrap_or(u64::MAX),
            slots: 0,
            slot_freed: 0,
            spent: None,
            pace: Pace::default(),
            counts: Counts::default(),
            last: now,
            gates_waiting: 0,
            turn: Turn::default(),
            news: 0,
            broken: None,
        }
    }

    /// All of it but for the rates.
    #[inline]
    pub(crate) fn carry(&mut self, carrier: &mut impl Carrier) {
        let Self { concurrency, slots, slot_freed, last, gates_waiting, news, .. } = self;
        for word in [concurrency, slots, slot_freed, last, gates_waiting, news, &mut self.turn.clock] {
            carrier.word(word);
        }
        let Counts { granted, cancelled, abandoned, timeouts, refused } = &mut self.counts;
        for word in [granted, cancelled, abandoned, timeouts, refused] {
            carrier.word(word);
        }
        self.pace.carry(carrier);
        self.carry_spent(carrier);
        self.ledger.carry(carrier);
    }

    fn carry_spent(&mut self, carrier: &mut impl Carrier) {
        let mut there = self.spent.is_some();
        carrier.flag(&mut there);
        if !there {
            self.spent = None;
            return;
        }
        let exhausted = Exhausted { resets_at: None, dimension: None };
        let spent = self.spent.get_or_insert(Spent { exhausted, since: 0, until: 0, probe_at: 0 });
        carrier.perhaps(&mut spent.exhausted.resets_at);
        let mut dimension = spent.exhausted.dimension.map(|dimension| dimension as u64);
        carrier.perhaps(&mut dimension);
        spent.exhausted.dimension = Dimension::ALL.into_iter().find(|&known| Some(known as u64) == dimension);
        for word in [&mut spent.since, &mut spent.until, &mut spent.probe_at] {
            carrier.word(word);
        }
    }

    /// Whether its numbers can be.
    pub(crate) fn is_sound(&self) -> bool {
        self.concurrency > 0 && self.pace.is_sound() && self.ledger.is_sound()
    }

    /// Time never runs backwards here, whatever the caller's clock does.
    #[inline]
    pub(crate) fn tick(&mut self, now: Nanos) -> Nanos {
        self.last = self.last.max(now);
        self.slot_freed = self.slot_freed.min(self.last);
        self.last
    }

    /// How many slots there are at the present speed.
    #[inline]
    pub(crate) fn slots_now(&self) -> u64 {
        let speed = self.pace.speed();
        if speed == FULL { self.concurrency } else { (self.concurrency.saturating_mul(speed) / FULL).max(1) }
    }

    /// Whether these are the limits that hold now.
    pub(crate) fn are_of(&self, ledger: &Ledger, concurrency: u64) -> bool {
        self.concurrency == concurrency && self.ledger.is_like(ledger)
    }

    /// Goes on with other limits.
    pub(crate) fn replace(&mut self, ledger: &Ledger, concurrency: u64, now: Nanos) {
        let rates = ledger.configured();
        self.ledger.set_jitter(ledger.jitter());
        for dimension in Dimension::ALL {
            let own = rates.iter().filter(|(other, _)| *other == dimension).map(|&(_, rate)| rate);
            self.ledger.update(dimension, &own.collect::<Vec<_>>(), now);
        }
        self.set_concurrency(Some(concurrency));
        self.news += 1;
    }

    /// Gives a slot back.
    pub(crate) fn free_slot(&mut self) {
        if self.slots >= self.slots_now() {
            self.slot_freed = self.last;
        }
        self.slots = self.slots.saturating_sub(1);
    }

    /// Changes how many slots there are. Those that are taken stay so.
    pub(crate) fn set_concurrency(&mut self, concurrency: Option<u64>) {
        if self.slots >= self.concurrency {
            // Until now, which the next decision tells.
            self.slot_freed = Nanos::MAX;
        }
        self.concurrency = concurrency.unwrap_or(u64::MAX);
    }

    /// The provider is overloaded: everything slows.
    pub(crate) fn overloaded(&mut self, now: Nanos) {
        self.ledger.overloaded(now);
        if self.ledger.is_empty() {
            self.pace.overloaded(now);
        }
    }
}
