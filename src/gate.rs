//! Ledger, queue and concurrency: admit now, or wait; what a tick, a release, a cancel sets free.
//!
//! Nothing here sleeps or wakes. Who drives a gate calls [`Gate::pump`] after whatever may set someone free (a release,
//! a settlement, a cancel, an update, or the time that [`Gate::next_event`] names) and wakes those whom it is given.

mod remote;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::sync::Arc;

use crate::clock::{Nanos, SECOND};
use crate::cost::{Cost, Dimension};
use crate::discovery::{Discovery, Origin};
use crate::keys::{Keys, PerKey};
use crate::ledger::{Ledger, Level, Oversize, Told};
use crate::pace::Permille;
use crate::provider::{self, Kind, Provider, Reading};
use crate::queue::{KeyId, Queue, Ticket, Waiting};
use crate::rate::{Rate, Seconds};
use crate::stats::{Counts, Waits};
pub use crate::store::Exhausted;
use crate::store::redis::wire;
use crate::store::{Books, GRACE, Part, Spent, Store};

pub use remote::OnFailure;
use remote::{Answer, Remote};

/// Nested calls go before all others: whoever they belong to holds a slot already, and must get on to give it back.
const NESTED: i64 = 1 << 40;

/// How often one call is let through to see whether a spent quota is back.
const PROBE: Nanos = 30 * SECOND;

/// How long a throttle holds calls back that states no wait.
const UNSTATED: Nanos = SECOND;

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

/// A call that asks to leave.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// What it is charged.
    pub cost: Cost,
    /// Whom it belongs to.
    pub key: Option<&'a str>,
    /// A higher one goes first.
    pub priority: i32,
    /// How long it is ready to wait, in nanoseconds: 0 is now or never.
    pub timeout: Option<Nanos>,
    /// Whether it happens inside a permit of this limiter: it takes no slot then.
    pub nested: bool,
}

impl Grant {
    /// The grant after its release, when its key may have been forgotten and its name given to another: it can still be
    /// settled, in the rates that all share.
    pub fn released(self) -> Self {
        Self { key: None, ..self }
    }
}

impl Request<'_> {
    /// Its place among the priorities.
    fn place(&self) -> i64 {
        i64::from(self.priority) + if self.nested { NESTED } else { 0 }
    }
}

/// The right to make one call, to be given back with [`Gate::release`] or [`Gate::abandon`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a grant holds a slot until it is released"]
pub struct Grant {
    /// What was charged.
    pub cost: Cost,
    /// When.
    pub charged_at: Nanos,
    /// How long the call waited, in nanoseconds.
    pub waited: Nanos,
    /// When, by the clock of a store at a distance, if that decided.
    at: Option<wire::Micros>,
    key: Option<KeyId>,
    slot: bool,
    epoch: u32,
}

/// Why a call may not leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No wait can satisfy it.
    Oversize(Oversize),
    /// It would have to wait for longer than it is ready to: this long at the least, in nanoseconds.
    Timeout(Nanos),
    /// So many wait already, and no more may.
    QueueFull(usize),
    /// The provider said that the quota is spent: no wait that anyone would sit out can help.
    Exhausted(Exhausted),
    /// The store is of no use, and why.
    Store(&'static str),
    /// The store cannot be asked, and nothing may leave without it. What happened to it, in words.
    Unavailable(Arc<str>),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Oversize(oversize) => oversize.fmt(f),
            Self::Timeout(wait) => write!(f, "the wait would be {} seconds at the least", Seconds(*wait)),
            Self::QueueFull(waiting) => write!(f, "{waiting} calls wait already, and no more may (max_waiting)"),
            Self::Store(why) => f.write_str(why),
            Self::Exhausted(exhausted) => {
                let of = exhausted.dimension.map_or(String::new(), |dimension| format!(" of {dimension}"));
                write!(f, "the provider said that the quota{of} is spent")
            }
            Self::Unavailable(why) => write!(f, "the store cannot be asked: {why}"),
        }
    }
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may leave now.
    Granted(Grant),
    /// It waits, under this name.
    Queued(Ticket),
    /// It may not.
    Refused(Refusal),
}

/// What became of someone who waited.
pub type Outcome = Result<Grant, Refusal>;

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

    /// Whether no wait can satisfy `cost`, by the shared rates or, if it belongs to a key, by those of each key.
    fn check(&self, cost: &Cost, key: Option<&str>) -> Result<(), Oversize> {
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
    fn stretch(&mut self, cost: &Cost, key: Option<&str>, now: Nanos) -> Result<(), Oversize> {
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

    fn wait(&mut self, now: Nanos, request: &Request<'_>, settled: &mut Vec<(T, Outcome)>) -> Admission {
        if self.is_linked() {
            return self.wait_remote(now, request);
        }
        let (cost, priority) = (request.cost.clamped(), request.place());
        let key = self.key(request, now);
        if let Some(timeout) = request.timeout {
            let wait = self.least_wait(&cost, priority, key, now);
            if wait > timeout {
                self.books.counts.timeouts += 1;
                self.forget(key, now);
                return Admission::Refused(Refusal::Timeout(wait));
            }
        }
        // Behind others of its flow a newcomer changes nothing about who is next. Otherwise it may be able to leave at
        // once, though others wait, so a full queue refuses it only then.
        let follows = self.queue.has_flow(priority, key);
        let waiting = self.queue.len();
        if waiting == 0 {
            self.books.turn.join();
        }
        let may_wait = waiting < self.max_waiting && request.timeout != Some(0);
        let ticket = self.queue.push(cost, now, priority, key, T::default());
        if let Some(state) = key.and_then(|key| self.keys.get(key)) {
            state.waiting += 1;
        }
        if let Some(timeout) = request.timeout.filter(|&timeout| timeout > 0) {
            self.deadlines.push(Reverse((now.saturating_add(timeout), ticket)));
        }
        let own = if follows { None } else { self.serve(now, Some(ticket), settled) };
        match own {
            Some(grant) => Admission::Granted(grant),
            None if may_wait => Admission::Queued(ticket),
            None => {
                self.leave(ticket, now);
                if !follows {
                    // It may have stood in front.
                    self.serve(now, None, settled);
                }
                Admission::Refused(if request.timeout == Some(0) {
                    self.books.counts.timeouts += 1;
                    Refusal::Timeout(self.least_wait(&cost, priority, key, now))
                } else {
                    self.books.counts.refused += 1;
                    Refusal::QueueFull(waiting)
                })
            }
        }
    }

    /// How long a newcomer would wait at the least, as far as rates tell: nobody knows when a slot comes free.
    fn least_wait(&mut self, cost: &Cost, priority: i64, key: Option<KeyId>, now: Nanos) -> Nanos {
        let ahead = self.queue.ahead(priority, key);
        let shared = self.books.ledger.earliest_behind(&ahead, cost, now);
        let own = key.and_then(|key| self.keys.get(key)?.ledger.as_mut()).map_or(now, |ledger| {
            // Of those ahead only its own flow is charged to this key; higher priorities may be another's.
            ledger.earliest_behind(&Cost::default(), cost, now)
        });
        shared.max(own).saturating_sub(now)
    }

    /// Admits all who may leave by now, and expires those whose time to wait is over. `settled` takes what became of
    /// each.
    pub fn pump(&mut self, now: Nanos, settled: &mut Vec<(T, Outcome)>) {
        if self.queue.is_empty() {
            self.head_due = None;
            return;
        }
        self.decide(now, |gate, now| {
            gate.serve(now, None, settled);
            if gate.expire(now, settled) {
                // Who was next may have been among them.
                gate.serve(now, None, settled);
            }
        });
    }

    /// Admits all who may leave. Gives the grant of `newcomer` if it is among them; all others go to `settled`.
    fn serve(&mut self, now: Nanos, newcomer: Option<Ticket>, settled: &mut Vec<(T, Outcome)>) -> Option<Grant> {
        let mut own = None;
        if self.news != self.books.news || self.books.broken.is_some() {
            self.tell_news(now, settled);
        }
        if self.is_linked() {
            self.head_due = None;
            return None;
        }
        self.queue.readmit_due(now);
        self.head_due = loop {
            let Self { queue, books: Books { ledger, .. }, .. } = self;
            let Some(next) = queue.next(|cost| ledger.service_time(cost)) else { break None };
            match self.due(&next, now) {
                Due::At(due) if due <= now && !self.comes_first(&next) => break Some(now.saturating_add(GRACE)),
                Due::At(due) if due <= now => {
                    let (payload, grant) = self.admit_waiting(&next, due, now);
                    if Some(next.ticket) == newcomer {
                        own = Some(grant);
                    } else {
                        settled.push((payload, Ok(grant)));
                    }
                }
                Due::At(due) => break Some(self.due_behind_rivals(&next, due, now)),
                Due::AfterRelease => break None,
                Due::KeyAt(due) => self.queue.set_aside(next.ticket, Some(due)),
                Due::KeyAfterRelease => self.queue.set_aside(next.ticket, None),
            }
        };
        own
    }

    /// Whether the waiter that is next goes before those who wait at other gates.
    #[inline]
    fn comes_first(&self, next: &Waiting) -> bool {
        next.priority >= NESTED / 2 || self.books.turn.is_own(true)
    }

    /// When the waiter that is next should look: when it is due, or when those at other gates that come first have left,
    /// which are taken to be like it.
    fn due_behind_rivals(&mut self, next: &Waiting, due: Nanos, now: Nanos) -> Nanos {
        if self.books.turn.rivals.is_empty() || self.comes_first(next) {
            return due;
        }
        let times = |amount: u64| amount.saturating_mul(self.books.turn.rank());
        let Cost { requests, tokens, input_tokens, output_tokens } = next.cost;
        let ahead = Cost {
            requests: times(requests),
            tokens: times(tokens),
            input_tokens: times(input_tokens),
            output_tokens: times(output_tokens),
        };
        self.books.ledger.earliest_behind(&ahead, &next.cost, now).max(due)
    }

    /// Tells those who wait what was changed by other gates and concerns them.
    #[cold]
    fn tell_news(&mut self, now: Nanos, settled: &mut Vec<(T, Outcome)>) {
        self.news = self.books.news;
        if let Some(why) = self.books.broken {
            for ticket in self.queue.pick(|_| true) {
                if let Some(payload) = self.leave(ticket, now) {
                    settled.push((payload, Err(Refusal::Store(why))));
                }
            }
            return;
        }
        self.fail_hopeless(now, settled);
        if let Some(spent) = self.books.spent.filter(|spent| now < spent.until) {
            self.fail_all(spent.exhausted, now, settled);
        }
    }

    /// When the waiter that is next may leave.
    fn due(&mut self, next: &Waiting, now: Nanos) -> Due {
        if self.is_open() {
            return Due::At(now);
        }
        let nested = next.priority >= NESTED / 2;
        let mut from = next.arrived;
        if let Some(key) = next.key {
            let concurrency = self.keys.concurrency();
            if let Some(state) = self.keys.get(key)
                && let Some(ledger) = &mut state.ledger
            {
                if !nested {
                    if state.slots >= concurrency {
                        return Due::KeyAfterRelease;
                    }
                    from = from.max(state.slot_freed);
                }
                let due = ledger.due(&next.cost, from, now);
                if due > now {
                    return Due::KeyAt(due);
                }
                from = due;
            }
        }
        if !nested && self.books.slots >= self.books.slots_now() {
            return Due::AfterRelease;
        }
        // Who waited for a slot was not due before it came free, nor before those ahead gave up.
        from = from.max(self.held_up).max(self.books.slot_freed);
        Due::At(self.books.ledger.due(&next.cost, from, now))
    }

    fn admit_waiting(&mut self, next: &Waiting, due: Nanos, now: Nanos) -> (T, Grant) {
        let Self { queue, books: Books { ledger, .. }, .. } = self;
        let payload = queue.serve(next.ticket, |cost| ledger.service_time(cost)).unwrap_or_default();
        let waited = now.saturating_sub(next.arrived);
        if waited > 0 {
            match &self.store {
                Some(store) => store.record(waited),
                None => self.waits.record(waited),
            }
        }
        let nested = next.priority >= NESTED / 2;
        if let Some(state) = next.key.and_then(|key| self.keys.get(key)) {
            state.waiting -= 1;
        }
        let grant = self.grant(next.cost, next.key, !nested, due, now, waited);
        if grant.key.is_none() {
            self.forget(next.key, now);
        }
        (payload, grant)
    }

    /// Ends the waits whose time is over; tells whether there were any.
    fn expire(&mut self, now: Nanos, settled: &mut Vec<(T, Outcome)>) -> bool {
        let mut expired = false;
        while let Some(&Reverse((deadline, ticket))) = self.deadlines.peek() {
            if deadline > now {
                // Those who left earlier are still listed; not too many of them.
                if self.deadlines.len() > 2 * self.queue.len() + 64 {
                    let Self { queue, deadlines, .. } = self;
                    deadlines.retain(|&Reverse((_, ticket))| queue.get(ticket).is_some());
                }
                break;
            }
            self.deadlines.pop();
            let Some(waiting) = self.queue.get(ticket) else { continue };
            let wait = self.books.ledger.earliest_behind(&Cost::default(), &waiting.cost, now).saturating_sub(now);
            let wait = self.as_told(wait, now);
            if let Some(payload) = self.leave(ticket, now) {
                self.books.counts.timeouts += 1;
                settled.push((payload, Err(Refusal::Timeout(wait))));
                expired = true;
            }
        }
        expired
    }

    /// When [`Gate::pump`] may next set someone free without anything being given back; never, if nothing is said.
    pub fn next_event(&mut self) -> Option<Nanos> {
        if self.queue.is_empty() {
            return None;
        }
        // Those who left earlier are still listed; nobody is to be woken for them.
        while let Some(&Reverse((_, ticket))) = self.deadlines.peek()
            && self.queue.get(ticket).is_none()
        {
            self.deadlines.pop();
        }
        let deadline = self.deadlines.peek().map(|&Reverse((deadline, _))| deadline);
        let readmission = self.queue.next_readmission().map(|(at, _)| at);
        [self.head_due, readmission, deadline].into_iter().flatten().min()
    }

    /// The payload of a waiter, to look at or to change.
    pub fn payload(&mut self, ticket: Ticket) -> Option<&mut T> {
        self.queue.payload(ticket)
    }

    /// Takes someone who waits out. Gives nothing if that call no longer waits: its outcome is under way then.
    pub fn cancel(&mut self, now: Nanos, ticket: Ticket) -> Option<T> {
        self.decide(now, |gate, now| {
            let payload = gate.leave(ticket, now)?;
            gate.books.counts.cancelled += 1;
            Some(payload)
        })
    }

    fn leave(&mut self, ticket: Ticket, now: Nanos) -> Option<T> {
        let key = self.queue.get(ticket)?.key;
        let payload = self.queue.remove(ticket)?;
        if let Some(remote) = &mut self.remote {
            remote.forget(ticket);
        }
        self.hold_up(now);
        if !self.books.turn.rivals.is_empty() {
            self.call(); // those who come after it come earlier
        }
        if let Some(state) = key.and_then(|key| self.keys.get(key)) {
            state.waiting -= 1;
        }
        self.forget(key, now);
        Some(payload)
    }

    /// Who is next changes without anyone leaving: nobody who waits was due before that, or, if the pump is late, before
    /// the one that was next. Or what they could not use meanwhile would leave in one burst.
    fn hold_up(&mut self, now: Nanos) {
        self.held_up = self.held_up.max(self.head_due.map_or(now, |due| due.min(now)));
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

    /// Lets nothing leave for `period` nanoseconds from now. A cooldown is never shortened by another.
    pub fn cool_down(&mut self, now: Nanos, period: Nanos) {
        self.decide(now, |gate, now| gate.cool_all(now, now.saturating_add(period)));
    }

    fn cool_all(&mut self, now: Nanos, until: Nanos) {
        self.books.ledger.cool_down(until);
        if let Some(remote) = &mut self.remote {
            let lasts = until.saturating_sub(now);
            remote.note_cooldown(wire::Cooldown { dimension: None, period: None, lasts, requested: 0 });
        }
    }

    /// The quota that is spent, unless it is time to ask the provider again: then this one call may.
    fn exhausted(&mut self, now: Nanos) -> Option<Exhausted> {
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
                            let requested = verdict.requested.unwrap_or(1);
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

    fn fail_all(&mut self, exhausted: Exhausted, now: Nanos, settled: &mut Vec<(T, Outcome)>) {
        for ticket in self.queue.pick(|_| true) {
            if let Some(payload) = self.leave(ticket, now) {
                self.books.counts.refused += 1;
                settled.push((payload, Err(Refusal::Exhausted(exhausted))));
            }
        }
    }

    /// How fast the slowest rate runs, in thousandths of what was configured.
    pub fn speed(&self) -> Permille {
        self.books.ledger.speed().min(self.books.pace.speed())
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

    fn fail_hopeless(&mut self, now: Nanos, settled: &mut Vec<(T, Outcome)>) {
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

    /// Those who wait and whose payload `pick` picks, to be cancelled one by one.
    pub fn pick(&self, pick: impl Fn(&T) -> bool) -> Vec<Ticket> {
        self.queue.pick(pick)
    }

    /// The waiters that must wake by a time for anyone to leave then, each with that time: the one that is next, if it
    /// waits for a time and not for a release, and the first of the key that may be asked again next.
    pub fn sentinels(&mut self) -> [Option<(Nanos, Ticket)>; 2] {
        let Self { queue, books: Books { ledger, .. }, .. } = self;
        let next = self.head_due.and_then(|due| Some((due, queue.next(|cost| ledger.service_time(cost))?.ticket)));
        [next, queue.next_readmission()]
    }

    /// When a waiter leaves if nothing is given back meanwhile and nobody comes before it: exact for the last of those of
    /// one key and priority, if no others wait. Who becomes a sentinel earlier or later than this is to be told.
    pub fn estimate(&mut self, now: Nanos, ticket: Ticket) -> Option<Nanos> {
        let now = self.tick(now);
        let waiting = self.queue.get(ticket)?;
        let ahead = self.queue.ahead(waiting.priority, waiting.key).minus(waiting.cost);
        let shared = self.books.ledger.earliest_behind(&ahead, &waiting.cost, now);
        let own = self.queue.of_flow(waiting.priority, waiting.key).minus(waiting.cost);
        let ledger = waiting.key.and_then(|key| self.keys.get(key)?.ledger.as_mut());
        Some(ledger.map_or(shared, |ledger| shared.max(ledger.earliest_behind(&own, &waiting.cost, now))))
    }

    /// When a waiter should be looked after: its due time if it is the next, when its key may be asked again if it is the
    /// first of that, and what [`Gate::estimate`] says otherwise; nothing if only an event can set it free.
    pub fn expected(&mut self, now: Nanos, ticket: Ticket) -> Option<Nanos> {
        let Self { queue, books: Books { ledger, .. }, .. } = self;
        if let Some(until) = queue.is_first_aside(ticket) {
            return until;
        }
        if self.remote.as_ref().is_some_and(|remote| remote.is_linked()) {
            return None;
        }
        if queue.next(|cost| ledger.service_time(cost)).is_some_and(|next| next.ticket == ticket) {
            return self.head_due;
        }
        self.estimate(now, ticket).filter(|&at| at > now)
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

    /// Whether other gates share the books.
    pub fn is_shared(&self) -> bool {
        self.store.is_some()
    }

    /// How many calls wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// How many calls may be under way at once, if that is bounded.
    pub fn concurrency(&self) -> Option<u64> {
        (self.books.concurrency != u64::MAX).then_some(self.books.concurrency)
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

    /// Whether the provider whose limits are found out counts input tokens and no others.
    pub fn counts_input_alone(&self) -> bool {
        self.discovery.as_ref().is_some_and(|discovery| discovery.counts_input_alone())
    }

    /// How the rate of a dimension and period, in nanoseconds, came to be.
    pub fn origin(&self, dimension: Dimension, period: Nanos) -> Origin {
        self.discovery.as_ref().map_or(Origin::Configured, |discovery| discovery.origin(dimension, period))
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

    /// Whether a rate counts this dimension.
    pub fn counts_dimension(&self, dimension: Dimension) -> bool {
        let own = self.keys.limits().is_some_and(|limits| limits.rates.iter().any(|(other, _)| *other == dimension));
        own || self.books.ledger.counts(dimension)
    }
}

/// When a waiter may leave.
enum Due {
    /// At this time, as far as the shared rates say.
    At(Nanos),
    /// When a slot comes free.
    AfterRelease,
    /// Its key may not go on before this time; others may.
    KeyAt(Nanos),
    /// When a slot of its key comes free; others may go on.
    KeyAfterRelease,
}
