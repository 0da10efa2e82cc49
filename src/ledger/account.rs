//! One rate of a limiter: what is charged to it, and what holds it back.

use std::sync::Arc;

use crate::bucket::Bucket;
use crate::clock::Nanos;
use crate::cost::Dimension;
use crate::pace::Pace;
use crate::rate::Rate;
use crate::window::{Ring, Window};

use super::answers::Remote;

/// A rate, and what is charged to it.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) dimension: Dimension,
    /// What was configured; no answer of the provider raises the rate above it.
    pub(super) configured: Rate,
    pub(super) rate: Rate,
    pub(super) bucket: Bucket,
    /// What left in the last period. It guards the rate, unless that has none; what answers say is left is read against it.
    pub(super) window: Window,
    /// Until when the guard last held a call back. The bucket must not run on times before that: it would save up, for
    /// one large burst, what the guard did not let go.
    pub(super) held: Nanos,
    /// Nothing that is charged to this rate leaves before this time.
    pub(super) cooldown: Nanos,
    pub(super) pace: Pace,
    pub(super) remote: Option<Remote>,
    /// Whether answers have shown that the provider's count is no bucket that is refilled all the time: their numbers look
    /// like those of one for a moment now and then.
    pub(super) starts_anew: bool,
    /// Which of the ledger's rings its window is kept in.
    pub(super) ring: usize,
}

impl Account {
    pub(super) fn new(dimension: Dimension, rate: Rate, jitter: Option<Nanos>, now: Nanos) -> Self {
        let (bucket, window) = (Bucket::new(&rate, now), Window::new(&rate, Self::spread(&rate, jitter)));
        let (configured, pace) = (rate, Pace::default());
        let (held, cooldown, remote) = (0, 0, None);
        Self { dimension, configured, rate, bucket, window, held, cooldown, pace, remote, starts_anew: false, ring: 0 }
    }

    /// Keeps its window in that ring of `rings`.
    pub(super) fn keep_in(&mut self, rings: &[Arc<dyn Ring>], ring: usize) {
        self.ring = ring;
        if let Some(ring) = rings.get(ring) {
            self.window.keep_in(Arc::clone(ring));
        }
    }

    pub(super) fn spread(rate: &Rate, jitter: Option<Nanos>) -> Nanos {
        jitter.unwrap_or_else(|| rate.default_jitter())
    }

    /// The window, where it guards the rate.
    #[inline]
    pub(super) fn guard(&self) -> Option<&Window> {
        self.rate.window().then_some(&self.window)
    }

    #[inline]
    pub(super) fn guard_mut(&mut self) -> Option<&mut Window> {
        self.rate.window().then_some(&mut self.window)
    }

    /// How long a charge can still be refunded: as long as it counts.
    pub(super) fn span(&self) -> Nanos {
        self.guard().map_or(self.rate.period(), Window::span)
    }

    #[inline]
    pub(super) fn due(&mut self, cost: u64, from: Nanos, now: Nanos) -> Nanos {
        if cost == 0 {
            return from;
        }
        let mut at = self.bucket.earliest(cost, from).max(self.cooldown);
        if let Some(remote) = &self.remote
            && self.pace.has_neighbours(self.rate.period(), now)
        {
            at = at.max(remote.left.earliest(cost, from));
        }
        if !self.rate.window() {
            return at;
        }
        self.window.expire(now);
        if self.window.fits(cost) {
            return at.max(self.held.min(now));
        }
        self.held = self.window.earliest(cost, at);
        self.held
    }

    pub(super) fn earliest_behind(&self, ahead: u64, cost: u64, from: Nanos) -> Nanos {
        if cost == 0 {
            return from;
        }
        let at = self.bucket.earliest_behind(ahead, cost, from).max(self.cooldown);
        self.guard().map_or(at, |window| window.earliest_behind(ahead, cost, from).max(at))
    }

    #[inline]
    pub(super) fn charge(&mut self, cost: u64, due: Nanos, now: Nanos) {
        self.pace.sent(cost);
        if let Some(remote) = &mut self.remote {
            remote.alone.charge(cost, now);
            remote.left.charge(cost, now);
        }
        self.bucket.charge_late(cost, due, now);
        if !self.rate.window() {
            self.window.expire(now);
        }
        self.window.charge(cost, now);
    }

    pub(super) fn settle(&mut self, charged: u64, actual: u64, charged_at: Nanos, now: Nanos) {
        if actual > charged {
            let debit = actual - charged;
            self.bucket.charge(debit, now);
            self.window.expire(now);
            self.window.charge(debit, now);
        } else if actual < charged && now < charged_at.saturating_add(self.span()) {
            let refund = charged - actual;
            self.bucket.refund(refund, now);
            self.window.refund(refund, charged_at, now);
            self.held = self.held.min(now);
        }
    }

    pub(super) fn change(&mut self, rate: Rate, jitter: Option<Nanos>, now: Nanos) {
        self.bucket.change(&rate, now);
        self.bucket.set_speed(self.pace.speed(), now);
        self.remote = None; // what was heard is of another limit
        self.window.change(&rate, Self::spread(&rate, jitter));
        self.rate = rate;
    }
}
