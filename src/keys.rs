//! Whom calls belong to: tenants, users, agents; each with what it may use on its own.

use std::collections::HashMap;

use crate::clock::Nanos;
use crate::cost::Dimension;
use crate::ledger::Ledger;
use crate::queue::KeyId;
use crate::rate::Rate;

/// What each key may use on its own.
#[derive(Clone, Debug, Default)]
pub struct PerKey {
    /// The rates of each key.
    pub rates: Vec<(Dimension, Rate)>,
    /// How many calls of a key may be under way at once.
    pub concurrency: Option<u64>,
}

/// How a key stands.
#[derive(Debug)]
pub(crate) struct KeyState {
    name: Box<str>,
    /// Present where keys have limits of their own.
    pub(crate) ledger: Option<Ledger>,
    /// How many permits are out.
    pub(crate) in_flight: u64,
    /// How many of those hold a slot.
    pub(crate) slots: u64,
    /// When the last slot of a key that had none left came free.
    pub(crate) slot_freed: Nanos,
    pub(crate) waiting: u64,
}

/// The keys that wait, hold something or still owe something. Idle ones are forgotten.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    per_key: Option<PerKey>,
    jitter: Option<Nanos>,
    by_name: HashMap<Box<str>, KeyId>,
    states: Vec<Option<KeyState>>,
    free: Vec<KeyId>,
    sweep_at: usize,
}

impl Keys {
    pub(crate) fn new(per_key: Option<PerKey>, jitter: Option<Nanos>) -> Self {
        Self { per_key, jitter, sweep_at: 64, ..Self::default() }
    }

    /// What each key may use on its own, if anything was said.
    pub(crate) fn limits(&self) -> Option<&PerKey> {
        self.per_key.as_ref()
    }

    /// How many calls of one key may be under way at once.
    pub(crate) fn concurrency(&self) -> u64 {
        self.per_key.as_ref().and_then(|limits| limits.concurrency).unwrap_or(u64::MAX)
    }

    pub(crate) fn get(&mut self, id: KeyId) -> Option<&mut KeyState> {
        self.states.get_mut(id as usize)?.as_mut()
    }

    /// The key of that name, made if it is new. It is kept while something waits or is under way for it, and, with
    /// limits of its own, until they are back in full.
    pub(crate) fn intern(&mut self, name: &str, now: Nanos) -> KeyId {
        if let Some(&id) = self.by_name.get(name) {
            return id;
        }
        if self.by_name.len() >= self.sweep_at {
            self.sweep(now);
        }
        let ledger = self.per_key.as_ref().map(|limits| Ledger::new(&limits.rates, self.jitter, now));
        let state = KeyState { name: name.into(), ledger, in_flight: 0, slots: 0, slot_freed: 0, waiting: 0 };
        let id = if let Some(id) = self.free.pop() {
            self.states[id as usize] = Some(state);
            id
        } else {
            self.states.push(Some(state));
            KeyId::try_from(self.states.len() - 1).unwrap_or(KeyId::MAX)
        };
        self.by_name.insert(name.into(), id);
        id
    }

    /// Forgets the idle keys; asked again when there are twice as many as are left.
    fn sweep(&mut self, now: Nanos) {
        for id in 0..self.states.len() {
            self.forget_if_idle(KeyId::try_from(id).unwrap_or(KeyId::MAX), now);
        }
        self.sweep_at = (self.by_name.len() * 2).max(64);
    }

    /// Forgets a key if nothing of it is left.
    pub(crate) fn forget_if_idle(&mut self, id: KeyId, now: Nanos) {
        let Some(place) = self.states.get_mut(id as usize) else { return };
        let idle = |state: &&mut KeyState| {
            state.in_flight == 0 && state.waiting == 0 && state.ledger.as_ref().is_none_or(|ledger| ledger.is_idle(now))
        };
        if place.as_mut().as_ref().is_some_and(idle)
            && let Some(state) = place.take()
        {
            self.by_name.remove(&state.name);
            self.free.push(id);
        }
    }

    /// How many keys are remembered.
    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Forgets who waits and what is under way, as a forked child must.
    pub(crate) fn disown(&mut self, now: Nanos) {
        for state in self.states.iter_mut().flatten() {
            state.in_flight = 0;
            state.slots = 0;
            state.waiting = 0;
        }
        self.sweep(now);
    }
}
