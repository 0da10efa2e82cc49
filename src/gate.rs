//! Ledger, queue and concurrency: admit now, or wait; what a tick, a release, a cancel sets free.
//!
//! Nothing here sleeps or wakes. Who drives a gate calls [`Gate::pump`] after whatever may set someone free (a release,
//! a settlement, a cancel, an update, or the time that [`Gate::next_event`] names) and wakes those whom it is given.

mod answers;
mod figures;
mod limits;
mod remote;
mod request;
mod waiters;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::clock::Nanos;
use crate::cost::{Cost, Dimension};
use crate::discovery::Discovery;
use crate::keys::{Keys, PerKey};
use crate::ledger::Ledger;
use crate::provider::Provider;
use crate::queue::{KeyId, Queue, Ticket};
use crate::rate::Rate;
use crate::stats::Waits;
pub use crate::store::Exhausted;
use crate::store::{Books, Part, Store};

pub use remote::OnFailure;
use remote::{Answer, Remote};
pub use request::{Admission, Grant, Outcome, Refusal, Request};

/// What a gate is made of.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The rates that all calls share.
    pub rates: Vec<(Dimension, Rate)>,
    /// How many calls may be under way at once.
    pub concurrency: Option<u64>,
    /// What each key may use on its own.
    pub per_key: Option<PerKey>,
    /// The spread of the network's delay, in nanoseconds; per rate [`Rate::default_jitter`] if not given.
    pub network_jitter: Option<Nanos>,
    /// How many calls may wait; no bound if not given.
    pub max_waiting: Option<usize>,
    /// Whose limits are found out where `rates` name none.
    pub discover: Option<Provider>,
}

/// Decides who may leave when. `T` is what the caller needs to find a waiter again.
#[derive(Debug)]
pub struct Gate<T> {
    /// What is shared with all other gates over the same store.
    books: Books,
    /// Where the books are kept, if not here alone.
    store: Option<Box<dyn Store>>,
    /// What of that is this gate's own; those who wait are counted by the queue.
    part: Part,
    /// What is charged since the books were opened.
    charged: Cost,
    /// The news of the books that those who wait were told.
    news: u64,
    keys: Keys,
    queue: Queue<T>,
    deadlines: BinaryHeap<Reverse<(Nanos, Ticket)>>,
    /// Until when a head of the queue that gave up last held everyone up.
    held_up: Nanos,
    max_waiting: usize,
    /// When the waiter that is next is due, as of the last pump; nothing if only an event can set it free.
    head_due: Option<Nanos>,
    epoch: u32,
    waits: Waits,
    /// Finds limits out that were not configured.
    discovery: Option<Box<Discovery>>,
    /// What a store that answers later needs.
    remote: Option<Box<Remote>>,
}

impl<T: Default> Gate<T> {
    /// A gate of that make, with everything unused.
    pub fn new(config: Config, now: Nanos) -> Self {
        let mut config = config;
        let discovery = Discovery::of(&mut config.rates, config.discover, now);
        let ledger = Ledger::new(&config.rates, config.network_jitter, now);
        Self {
            books: Books::new(ledger, config.concurrency, now),
            store: None,
            part: Part::default(),
            charged: Cost::default(),
            news: 0,
            keys: Keys::new(config.per_key, config.network_jitter),
            queue: Queue::default(),
            deadlines: BinaryHeap::new(),
            held_up: 0,
            max_waiting: config.max_waiting.unwrap_or(usize::MAX),
            head_due: None,
            epoch: 0,
            waits: Waits::default(),
            discovery,
            remote: None,
        }
    }

    /// A gate over shared memory: one ledger with all other gates over the memory of that name, in whatever process. What
    /// was charged before holds.
    ///
    /// # Errors
    /// [`Trouble`](crate::store::shared::Trouble): the name cannot be, or keys have limits of their own, or the memory
    /// cannot be used, or others use it with other limits and it was not said what then.
    #[cfg(unix)]
    pub fn over_shared_memory(
        name: &str,
        config: Config,
        on_conflict: crate::store::shared::OnConflict,
        now: Nanos,
    ) -> Result<Self, crate::store::shared::Trouble> {
        use crate::ledger::MOST_RATES;
        use crate::store::shared::{Shared, Trouble};
        if config.per_key.is_some() {
            let message =
                "per_key: what each key may use on its own is not kept in shared memory; leave per_key out, or";
            return Err(Trouble::Name(format!("{message} use store='memory://'")));
        }
        let mut gate = Self::new(config, now);
        let Books { ledger, concurrency, .. } = &gate.books;
        let rates = ledger.configured().len();
        if rates > MOST_RATES {
            let message = format!("shared memory keeps {MOST_RATES} rates at the most, not {rates}");
            return Err(Trouble::Name(message));
        }
        let (shared, books) = Shared::attach(name, ledger.clone(), *concurrency, on_conflict, now)?;
        gate.news = books.news;
        gate.books = books;
        gate.store = Some(Box::new(shared));
        Ok(gate)
    }

    /// Time never runs backwards here, whatever the caller's clock does.
    fn tick(&mut self, now: Nanos) -> Nanos {
        let now = self.books.tick(now);
        self.held_up = self.held_up.min(now);
        now
    }

    /// Makes one decision, between the opening of the books and their closing.
    #[inline]
    fn decide<R>(&mut self, now: Nanos, decision: impl FnOnce(&mut Self, Nanos) -> R) -> R {
        if self.store.is_some() {
            return self.decide_with_others(now, decision);
        }
        let now = self.tick(now);
        decision(self, now)
    }

    fn decide_with_others<R>(&mut self, now: Nanos, decision: impl FnOnce(&mut Self, Nanos) -> R) -> R {
        if let Some(store) = &mut self.store {
            store.open(&mut self.books, now);
        }
        self.charged = Cost::default();
        let now = self.tick(now);
        self.books.turn.begin(now);
        let decided = decision(self, now);
        let looks_at = if self.queue.is_empty() { 0 } else { self.head_due.unwrap_or(Nanos::MAX) };
        let part = Part { waiting: self.queue.len() as u64, looks_at, ..self.part };
        if let Some(store) = &mut self.store {
            // Whoever stood still for so long that others went on charges anew; twice, if it comes to the worst.
            while !store.close(&mut self.books, &part) {
                store.open(&mut self.books, now);
                self.books.ledger.charge(&self.charged, now, now);
            }
        }
        decided
    }

    /// Those who wait in other processes look again when this decision is made.
    #[inline]
    fn call(&mut self) {
        if let Some(store) = &mut self.store {
            store.call();
        }
    }

    /// What the slowest rate needs for a call; nothing if there is no rate.
    fn service(&self, cost: &Cost) -> Option<Nanos> {
        (!self.books.ledger.is_empty()).then(|| self.books.ledger.service_time(cost))
    }

    /// Lets a call leave, or wait, or neither. `settled` takes what became of others meanwhile, as in [`Gate::pump`].
    ///
    /// A waiter whose payload is not known yet is given one with [`Gate::payload`].
    pub fn admit(&mut self, now: Nanos, request: &Request<'_>, settled: &mut Vec<(T, Outcome)>) -> Admission {
        self.decide(now, |gate, now| {
            gate.leave_at_once(now, request).unwrap_or_else(|| gate.wait(now, request, settled))
        })
    }

    /// The answer to a request that need not wait; nothing for one that must.
    #[inline]
    pub fn admit_at_once(&mut self, now: Nanos, request: &Request<'_>) -> Option<Admission> {
        self.decide(now, |gate, now| gate.leave_at_once(now, request))
    }

    #[inline]
    fn leave_at_once(&mut self, now: Nanos, request: &Request<'_>) -> Option<Admission> {
        let cost = request.cost.clamped();
        if let Some(why) = self.books.broken {
            return Some(Admission::Refused(Refusal::Store(why)));
        }
        if self.check(&cost, request.key).is_err()
            && let Err(oversize) = self.stretch(&cost, request.key, now)
        {
            self.books.counts.refused += 1;
            return Some(Admission::Refused(Refusal::Oversize(oversize)));
        }
        if let Some(exhausted) = self.exhausted(now) {
            self.books.counts.refused += 1;
            return Some(Admission::Refused(Refusal::Exhausted(exhausted)));
        }
        if self.remote.is_some() {
            match self.remote_answer(now, &cost, request) {
                Answer::Now(admission) => return Some(admission),
                Answer::Later => return None,
                Answer::Here => {}
            }
        }
        if !self.queue.is_clear(request.place()) || !(request.nested || self.books.turn.is_own(false)) {
            return None;
        }
        // Without limits of its own a key matters only to those who wait.
        let key = if self.keys.limits().is_some() { self.key(request, now) } else { None };
        // Of a key with limits of its own others may wait at a lower priority: who takes what their next was to leave
        // with changes whose turn it is, and goes through the queue.
        if key.is_some() && !self.queue.is_empty() || !self.has_room(&cost, key, request.nested, now) {
            return None;
        }
        Some(Admission::Granted(self.grant(cost, key, !request.nested, now, now, 0)))
    }

    fn key(&mut self, request: &Request<'_>, now: Nanos) -> Option<KeyId> {
        request.key.map(|name| self.keys.intern(name, now))
    }

    fn has_room(&mut self, cost: &Cost, key: Option<KeyId>, nested: bool, now: Nanos) -> bool {
        if !nested && self.books.slots >= self.books.slots_now() {
            return false;
        }
        if let Some(key) = key {
            let concurrency = self.keys.concurrency();
            let Some(state) = self.keys.get(key) else { return false };
            if !nested && state.slots >= concurrency {
                return false;
            }
            if state.ledger.as_mut().is_some_and(|ledger| !ledger.fits(cost, now)) {
                return false;
            }
        }
        self.books.ledger.fits(cost, now)
    }

    fn grant(&mut self, cost: Cost, key: Option<KeyId>, slot: bool, due: Nanos, now: Nanos, waited: Nanos) -> Grant {
        self.books.ledger.charge(&cost, due, now);
        if self.store.is_some() {
            self.charged = self.charged.plus(cost);
            if !self.books.turn.rivals.is_empty() {
                let last_slot = slot && self.books.slots.saturating_add(1) >= self.books.slots_now();
                self.books.turn.served(waited > 0 || !self.queue.is_empty(), self.service(&cost), last_slot, now);
            }
        }
        if let Some(discovery) = &mut self.discovery {
            discovery.sent(&cost, now);
        }
        let mut held = None;
        if let Some(id) = key
            && let Some(state) = self.keys.get(id)
            && let Some(ledger) = &mut state.ledger
        {
            ledger.charge(&cost, due, now);
            state.in_flight += 1;
            state.slots += u64::from(slot);
            held = key;
        }
        self.books.slots += u64::from(slot);
        self.part.slots += u64::from(slot);
        self.part.in_flight += 1;
        self.books.counts.granted += 1;
        let at = self.remote.as_mut().and_then(|remote| remote.note_grant(&cost, slot));
        Grant { cost, charged_at: now, waited, at, key: held, slot, epoch: self.epoch }
    }

    fn forget(&mut self, key: Option<KeyId>, now: Nanos) {
        if let Some(key) = key {
            self.keys.forget_if_idle(key, now);
        }
    }

    /// Gives a slot back. What was charged stays charged.
    #[inline]
    pub fn release(&mut self, now: Nanos, grant: &Grant) {
        if self.store.is_some() && self.release_noted(grant) {
            return;
        }
        self.decide(now, |gate, now| gate.give_back(now, grant));
    }

    /// Gives a permit back that nobody else waits for, if its store knows that.
    fn release_noted(&mut self, grant: &Grant) -> bool {
        let Some(store) = self.store.as_mut().filter(|_| self.books.concurrency == u64::MAX) else { return false };
        if grant.epoch != self.epoch {
            return true;
        }
        let in_flight = self.part.in_flight.saturating_sub(1);
        let slots = self.part.slots.saturating_sub(u64::from(grant.slot));
        let part = Part { in_flight, slots, ..self.part };
        let noted = store.note(&part);
        if noted {
            self.part = part;
        }
        noted
    }

    #[inline]
    fn give_back(&mut self, now: Nanos, grant: &Grant) {
        if grant.epoch != self.epoch {
            return;
        }
        self.part.in_flight = self.part.in_flight.saturating_sub(1);
        if grant.slot {
            self.part.slots = self.part.slots.saturating_sub(1);
            if self.books.slots >= self.books.slots_now() {
                self.call();
            }
            self.books.free_slot();
            if let Some(remote) = &mut self.remote {
                remote.note_release();
            }
        }
        if let Some(key) = grant.key {
            let concurrency = self.keys.concurrency();
            if let Some(state) = self.keys.get(key) {
                state.in_flight = state.in_flight.saturating_sub(1);
                if grant.slot {
                    if state.slots >= concurrency {
                        state.slot_freed = now;
                    }
                    state.slots = state.slots.saturating_sub(1);
                }
            }
            self.queue.readmit(key);
            self.forget(grant.key, now);
        }
    }

    /// As [`Gate::release`], while nobody waits: then it does not matter when.
    pub fn release_unwatched(&mut self, grant: &Grant) {
        self.release(self.books.last, grant);
    }

    /// Replaces what was charged by the actual cost: a refund into the window that was charged, or a debit now.
    pub fn settle(&mut self, now: Nanos, grant: &mut Grant, actual: &Cost) {
        self.decide(now, |gate, now| gate.recharge(now, grant, actual));
    }

    fn recharge(&mut self, now: Nanos, grant: &mut Grant, actual: &Cost) {
        if grant.epoch != self.epoch {
            return;
        }
        let actual = actual.clamped();
        if self.store.is_some() {
            self.charged = self.charged.plus(actual.minus(grant.cost));
            if !grant.cost.minus(actual).is_free() {
                self.call();
            }
        }
        self.books.ledger.settle(&grant.cost, &actual, grant.charged_at, now);
        if let Some(remote) = &mut self.remote {
            remote.note_settle(grant, &actual);
        }
        if let Some(state) = grant.key.and_then(|key| self.keys.get(key))
            && let Some(ledger) = &mut state.ledger
        {
            ledger.settle(&grant.cost, &actual, grant.charged_at, now);
            if let Some(key) = grant.key {
                self.queue.readmit(key);
            }
        }
        grant.cost = actual;
    }

    /// Takes a grant back whose call never left: all of its cost, and its slot.
    pub fn abandon(&mut self, now: Nanos, mut grant: Grant) {
        self.decide(now, |gate, now| {
            gate.recharge(now, &mut grant, &Cost::default());
            gate.give_back(now, &grant);
            gate.books.counts.cancelled += u64::from(grant.epoch == gate.epoch);
            gate.books.counts.abandoned += u64::from(grant.epoch == gate.epoch);
        });
    }

    /// Forgets who waits and what is under way: in a forked child those belong to the parent. Permits that were copied
    /// into the child are no longer counted, and giving them back changes nothing. Gives the payloads of those who
    /// waited.
    pub fn disown(&mut self) -> Vec<T> {
        // One by one, so that the names of those who waited are never given to others.
        let waiting = self.queue.pick(|_| true);
        let payloads = waiting.into_iter().filter_map(|ticket| self.queue.remove(ticket)).collect();
        self.deadlines.clear();
        self.disown_remote();
        self.keys.disown(self.books.last);
        self.head_due = None;
        match &mut self.store {
            Some(store) => store.disown(),
            None => self.books.slots = 0,
        }
        self.part = Part::default();
        self.epoch = self.epoch.wrapping_add(1);
        payloads
    }

    /// Whether a grant is one of this process, and not the copy that a fork made.
    pub fn counts_grant(&self, grant: &Grant) -> bool {
        grant.epoch == self.epoch
    }

    /// Whether other gates share the books.
    pub fn is_shared(&self) -> bool {
        self.store.is_some()
    }
}
