//! The limits of a gate: what no wait can satisfy under them, and how they change.

use crate::clock::Nanos;
use crate::cost::{Cost, Dimension};
use crate::discovery::Origin;
use crate::ledger::Oversize;
use crate::queue::Waiting;
use crate::rate::Rate;
use crate::store::redis::wire;

use super::{Gate, Outcome, Refusal};

impl<T: Default> Gate<T> {
    /// Whether no wait can satisfy `cost`, by the shared rates or, if it belongs to a key, by those of each key.
    pub(super) fn check(&self, cost: &Cost, key: Option<&str>) -> Result<(), Oversize> {
        self.books.ledger.check(cost)?;
        let Some(limits) = self.keys.limits().filter(|_| key.is_some()) else { return Ok(()) };
        for &(dimension, rate) in &limits.rates {
            let (cost, limit) = (cost.get(dimension), rate.amount());
            if cost > limit {
                return Err(Oversize { dimension, cost, limit });
            }
        }
        Ok(())
    }

    /// What says that a cost is too large for good: limits that were only tried give way.
    #[cold]
    pub(super) fn stretch(&mut self, cost: &Cost, key: Option<&str>, now: Nanos) -> Result<(), Oversize> {
        while let Err(oversize) = self.check(cost, key) {
            let Some(discovery) = &mut self.discovery else { return Err(oversize) };
            let whole = self.remote.as_mut().and_then(|remote| remote.whole());
            if !discovery.stretch(&oversize, whole.unwrap_or(&mut self.books.ledger), now) {
                return Err(oversize);
            }
            self.share_found(now);
        }
        self.note_found();
        Ok(())
    }

    /// Whether the store has a place for as many rates of these dimensions, in place of those that there are.
    pub fn has_places(&self, changes: &[(Dimension, usize)]) -> bool {
        self.books.ledger.has_places(changes)
    }

    /// Replaces the rates of one dimension. Those who wait and can never leave under the new ones are told.
    pub fn update(&mut self, now: Nanos, dimension: Dimension, rates: &[Rate], settled: &mut Vec<(T, Outcome)>) {
        self.decide(now, |gate, now| {
            gate.hold_up(now);
            if let Some(discovery) = &mut gate.discovery {
                discovery.configure(dimension);
            }
            gate.update_share(dimension, rates, now);
            gate.note_limits(wire::Places::of(dimension));
            gate.fail_hopeless(now, settled);
            gate.books.news += 1;
            gate.news = gate.books.news;
            gate.call();
        });
    }

    pub(super) fn fail_hopeless(&mut self, now: Nanos, settled: &mut Vec<(T, Outcome)>) {
        let hopeless = |waiting: Waiting| {
            self.books.ledger.check(&waiting.cost).is_err().then_some((waiting.ticket, waiting.cost))
        };
        let hopeless: Vec<_> = self.queue.iter().filter_map(hopeless).collect();
        for (ticket, cost) in hopeless {
            let Err(why) = self.stretch(&cost, None, now) else { continue };
            if let Some(payload) = self.leave(ticket, now) {
                self.books.counts.refused += 1;
                settled.push((payload, Err(Refusal::Oversize(why))));
            }
        }
    }

    /// Changes how many calls may be under way at once. Those that are keep their slots.
    pub fn set_concurrency(&mut self, concurrency: Option<u64>) {
        self.decide(self.books.last, |gate, _| {
            gate.set_share_concurrency(concurrency);
            gate.note_limits(wire::Places::CONCURRENCY);
            gate.call();
        });
    }

    /// How many calls may be under way at once, if that is bounded.
    pub fn concurrency(&self) -> Option<u64> {
        (self.books.concurrency != u64::MAX).then_some(self.books.concurrency)
    }

    /// Whether a rate counts this dimension.
    pub fn counts_dimension(&self, dimension: Dimension) -> bool {
        let own = self.keys.limits().is_some_and(|limits| limits.rates.iter().any(|(other, _)| *other == dimension));
        own || self.books.ledger.counts(dimension)
    }

    /// Whether the provider whose limits are found out counts input tokens and no others.
    pub fn counts_input_alone(&self) -> bool {
        self.discovery.as_ref().is_some_and(|discovery| discovery.counts_input_alone())
    }

    /// How the rate of a dimension and period, in nanoseconds, came to be.
    pub fn origin(&self, dimension: Dimension, period: Nanos) -> Origin {
        self.discovery.as_ref().map_or(Origin::Configured, |discovery| discovery.origin(dimension, period))
    }
}
