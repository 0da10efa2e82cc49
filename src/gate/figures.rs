//! How a gate stands, in numbers.

use std::borrow::Cow;

use crate::clock::Nanos;
use crate::ledger::Level;
use crate::pace::Permille;
use crate::stats::{Counts, Waits};

use super::Gate;

impl<T: Default> Gate<T> {
    /// How many permits are out.
    pub fn in_flight(&self) -> u64 {
        self.part.in_flight
    }

    /// How many permits are out, and how many calls wait, at all gates over the same store.
    pub fn everywhere(&self) -> (u64, u64) {
        match &self.store {
            Some(store) => {
                let all = store.parts();
                (all.in_flight, all.waiting)
            }
            None => (self.part.in_flight, self.queue.len() as u64),
        }
    }

    /// Brings what can be asked up to date with what other gates over the same store have done.
    pub fn refresh(&mut self, now: Nanos) {
        if self.store.is_some() {
            self.decide(now, |_, _| ());
        }
    }

    /// How many calls wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// How many calls ended how.
    pub fn counts(&self) -> Counts {
        self.books.counts
    }

    /// How long calls waited.
    pub fn waits(&self) -> Cow<'_, Waits> {
        self.store.as_ref().map_or(Cow::Borrowed(&self.waits), |store| Cow::Owned(store.waits()))
    }

    /// How each rate stands.
    pub fn levels(&mut self, now: Nanos) -> Vec<Level> {
        let now = self.tick(now);
        self.books.ledger.levels(now)
    }

    /// How fast the slowest rate runs, in thousandths of what was configured.
    pub fn speed(&self) -> Permille {
        self.books.ledger.speed().min(self.books.pace.speed())
    }

    /// How much longer the cooldown lasts, in nanoseconds; 0 if there is none.
    pub fn cooling(&mut self, now: Nanos) -> Nanos {
        let now = self.tick(now);
        self.books.ledger.cooldown().saturating_sub(now)
    }

    /// How many keys are remembered.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }
}
