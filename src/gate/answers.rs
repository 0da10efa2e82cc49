//! What a gate takes in of the provider's answers: cooldowns, limits, overloads, and quotas that are spent.

use crate::clock::{Nanos, SECOND};
use crate::ledger::Told;
use crate::provider::{self, Kind, Reading};
use crate::store::Spent;
use crate::store::redis::wire;

use super::{Exhausted, Gate, Outcome, Refusal};

/// How often one call is let through to see whether a spent quota is back.
pub(super) const PROBE: Nanos = 30 * SECOND;

/// How long a throttle holds calls back that states no wait.
const UNSTATED: Nanos = SECOND;

impl<T: Default> Gate<T> {
    /// Takes in what the provider answered to a call that left at `sent_at` (now, if nobody knows).
    ///
    /// A throttle holds all who would be refused until the stated wait is over. Limits that the provider names hold if
    /// they are lower than what was configured; what it says is left corrects the ledger downwards. An overload without
    /// a number slows everything, and success lets it recover. A quota that is spent fails those who wait, and those who
    /// come, until it resets; one call now and then is let through to see.
    pub fn observe(&mut self, now: Nanos, reading: &Reading, sent_at: Option<Nanos>, settled: &mut Vec<(T, Outcome)>) {
        self.decide(now, |gate, now| gate.heed(now, reading, sent_at.unwrap_or(now).min(now), settled));
    }

    fn heed(&mut self, now: Nanos, reading: &Reading, sent_at: Nanos, settled: &mut Vec<(T, Outcome)>) {
        let verdict = &reading.verdict;
        let speed = self.books.ledger.speed();
        let wait = verdict.wait.map(|wait| Nanos::try_from(wait.as_nanos()).unwrap_or(Nanos::MAX));
        self.find_out(now, reading, sent_at, settled);
        // Of several counters of one quota (a key's, a team's, a project's) the smallest counts.
        let is_looser = |limit: &provider::Limit, other: &provider::Limit| {
            (limit.dimension, limit.window) == (other.dimension, other.window)
                && limit.limit > other.limit.filter(|&n| n > 0)
        };
        let tightest = |limit: &&provider::Limit| {
            !reading.limits.iter().any(|other| other.limit.is_some() && is_looser(limit, other))
        };
        for limit in reading.limits.iter().filter(tightest) {
            let period = limit.window.and_then(|window| Nanos::try_from(window.as_nanos()).ok());
            let &provider::Limit { dimension, limit, remaining, refilled, .. } = limit;
            let told = Told { dimension, limit, remaining, period, refilled };
            self.books.ledger.learn(&told, sent_at, now);
        }
        match verdict.kind {
            Kind::Ok if reading.over_limit => self.books.overloaded(now),
            Kind::Ok => {
                if self.books.spent.is_some_and(|spent| sent_at >= spent.since) {
                    self.books.spent = None;
                    self.call();
                    if let Some(remote) = &mut self.remote {
                        remote.note_spent(None, now);
                    }
                }
                self.books.ledger.succeeded(now);
                // Without rates, an app that leaves half of its slots free sends little.
                if self.books.slots.saturating_add(1) * 2 >= self.books.slots_now() {
                    self.books.pace.sent(1);
                }
                if self.books.pace.succeeded(1, Nanos::MAX, now) || self.books.ledger.speed() > speed {
                    self.call();
                }
            }
            Kind::Throttled => {
                let until = now.saturating_add(wait.unwrap_or(UNSTATED));
                match verdict.dimension {
                    Some(dimension) => {
                        let period = verdict.window.and_then(|window| Nanos::try_from(window.as_nanos()).ok());
                        self.books.ledger.cool_down_in(dimension, period, until, verdict.requested);
                        if let Some(remote) = &mut self.remote {
                            let (dimension, lasts) = (Some(dimension), until.saturating_sub(now));
                            let requested = verdict.requested.map_or(0, |requested| requested.max(1));
                            remote.note_cooldown(wire::Cooldown { dimension, period, lasts, requested });
                        }
                    }
                    None => self.cool_all(now, until),
                }
            }
            Kind::Overloaded => {
                self.books.overloaded(now);
                if let Some(wait) = wait {
                    self.cool_all(now, now.saturating_add(wait));
                }
            }
            Kind::QuotaExhausted => {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a cast saturates
                let resets_at = verdict.resets_at.map(|at| (at * 1e3).round() as u64);
                let exhausted = Exhausted { resets_at, dimension: verdict.dimension };
                let until = now.saturating_add(wait.unwrap_or(Nanos::MAX / 2));
                // A late answer to a call that left before is no news either, or it would hide a probe's success.
                let since = self.books.spent.map_or(now, |spent| if sent_at < spent.since { spent.since } else { now });
                self.books.spent = Some(Spent { exhausted, since, until, probe_at: now.saturating_add(PROBE) });
                if let Some(remote) = &mut self.remote {
                    remote.note_spent(self.books.spent, now);
                }
                self.fail_all(exhausted, now, settled);
                self.books.news += 1;
                self.news = self.books.news;
                self.call();
            }
            Kind::Transient | Kind::Oversize | Kind::Fatal => {}
        }
        if self.discovery.is_some() {
            self.note_found();
        }
        if let Some(remote) = &mut self.remote {
            remote.note_learned(&self.books.ledger);
        }
    }

    /// Takes in what an answer says of limits that nobody configured.
    fn find_out(&mut self, now: Nanos, reading: &Reading, sent_at: Nanos, settled: &mut Vec<(T, Outcome)>) {
        let Some(discovery) = &mut self.discovery else { return };
        let busy = !self.queue.is_empty();
        let whole = self.remote.as_mut().and_then(|remote| remote.whole());
        let ledger = whole.unwrap_or(&mut self.books.ledger);
        let heeded = discovery.heed(ledger, reading, sent_at, now, busy);
        if let Some((dimension, until)) = heeded.held {
            self.books.ledger.cool_down_in(dimension, None, until, Some(1));
            if let Some(remote) = &mut self.remote {
                let lasts = until.saturating_sub(now);
                let dimension = Some(dimension);
                remote.note_cooldown(wire::Cooldown { dimension, period: None, lasts, requested: 1 });
            }
        }
        if let Some(remote) = &mut self.remote {
            remote.note_counted(heeded.counted);
        }
        if heeded.changed {
            self.share_found(now);
            self.fail_hopeless(now, settled);
            self.books.news += 1;
            self.news = self.books.news;
            self.call();
        }
    }

    /// The quota that is spent, unless it is time to ask the provider again: then this one call may.
    pub(super) fn exhausted(&mut self, now: Nanos) -> Option<Exhausted> {
        let spent = self.books.spent.as_mut()?;
        if now >= spent.until {
            self.books.spent = None;
            return None;
        }
        if now >= spent.probe_at {
            spent.probe_at = now.saturating_add(PROBE);
            return None;
        }
        Some(spent.exhausted)
    }

    pub(super) fn fail_all(&mut self, exhausted: Exhausted, now: Nanos, settled: &mut Vec<(T, Outcome)>) {
        for ticket in self.queue.pick(|_| true) {
            if let Some(payload) = self.leave(ticket, now) {
                self.books.counts.refused += 1;
                settled.push((payload, Err(Refusal::Exhausted(exhausted))));
            }
        }
    }

    /// Lets nothing leave for `period` nanoseconds from now. A cooldown is never shortened by another.
    pub fn cool_down(&mut self, now: Nanos, period: Nanos) {
        self.decide(now, |gate, now| gate.cool_all(now, now.saturating_add(period)));
    }

    pub(super) fn cool_all(&mut self, now: Nanos, until: Nanos) {
        self.books.ledger.cool_down(until);
        if let Some(remote) = &mut self.remote {
            let lasts = until.saturating_sub(now);
            remote.note_cooldown(wire::Cooldown { dimension: None, period: None, lasts, requested: 0 });
        }
    }
}
