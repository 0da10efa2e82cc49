//! A gate whose store answers later: who waits is asked for, in order, and leaves when the answer says so.
//!
//! The queue stays here, with its priorities, keys and deadlines. Those who are next are lent to the store
//! ([`Gate::outgoing`]) and come back decided ([`Gate::hear`]); meanwhile they can be cancelled as ever, and what comes for
//! one who is gone is given back. The books here count what this process uses. They decide nothing while the store is
//! there; when it is away they are what remains.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::clock::{Nanos, SECOND};
use crate::cost::{Cost, Dimension};
use crate::ledger::{Ledger, Oversize};
use crate::queue::{Ticket, Waiting};
use crate::rate::Rate;
use crate::store::Spent;
use crate::store::redis::link::{Denial, Event, Notes, Settled};
use crate::store::redis::wire::{self, Ask, Counted, Learned, Left, Limits, Micros, Places};

use super::answers::PROBE;
use super::request::NESTED;
use super::{Admission, Config, Exhausted, Gate, Grant, Outcome, Refusal, Request};

/// What happens while the store is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Each process goes on alone with its share: the limits, divided by the number of processes that was known last.
    #[default]
    Share,
    /// Everything leaves.
    Open,
    /// Nothing leaves.
    Closed,
}

/// Who answers a request.
pub(super) enum Answer {
    /// Nobody need be asked.
    Now(Admission),
    /// The store, when it is asked.
    Later,
    /// The books here.
    Here,
}

/// The steps in which patience is told.
const STEP: Nanos = SECOND / 100;
/// Whoever is ready to wait for so long need not be told sooner.
const LONG: Nanos = 3_600 * SECOND;

/// How many calls ask at once, at the least, at first and at the most.
const APPETITE: (usize, usize, usize) = (16, 256, 65_536);

/// The part of a gate that a store at a distance needs.
#[derive(Debug)]
pub(super) struct Remote {
    on_failure: OnFailure,
    /// Why nobody can be asked.
    away: Option<Arc<str>>,
    /// Since when.
    since: Nanos,
    /// Whether only a change of the configuration can mend that.
    misconfigured: bool,
    members: u64,
    /// What this process uses of the whole, while a share of it decides.
    whole: Option<(Ledger, u64)>,
    notes: Notes,
    /// Those who leave now or never.
    hasty: HashSet<Ticket>,
    /// Until when those wait who do not wait for ever.
    deadlines: HashMap<Ticket, Nanos>,
    /// At which priority someone is held up: nobody of that or a lower one need ask.
    paused: Option<i64>,
    /// Whether it is for a slot.
    for_slot: bool,
    /// When the one that is held up could leave at the earliest.
    not_before: Nanos,
    /// The one that is held up.
    held: Option<Ticket>,
    /// When it could leave if nobody but this process used anything.
    by_own_use: Nanos,
    appetite: usize,
    /// When the call that is granted next was charged, by the store's clock.
    granting: Option<Micros>,
    /// What the store knows of what answers have made of the rates.
    learned: Vec<Learned>,
    /// The rates that the store was told, or has told.
    told: Vec<(Dimension, Rate)>,
    /// Which limits those are, as the store counts them.
    edition: i64,
    jitter: Option<Nanos>,
    /// When this process last heard that a quota which was spent is back.
    back: Option<Nanos>,
}

impl Remote {
    pub(super) fn is_linked(&self) -> bool {
        self.away.is_none()
    }

    /// Notes a grant; gives when it was charged, by the store's clock.
    pub(super) fn note_grant(&mut self, cost: &Cost, slot: bool) -> Option<Micros> {
        let at = self.granting.take();
        if at.is_none() {
            self.notes.taken += u64::from(slot);
            self.notes.debit = self.notes.debit.plus(*cost);
        }
        at
    }

    pub(super) fn note_release(&mut self) {
        self.notes.released += 1;
        if self.for_slot {
            // Who is next asks with the same message.
            self.go_on();
        }
    }

    pub(super) fn note_settle(&mut self, grant: &Grant, actual: &Cost) {
        let Grant { cost: charged, charged_at, at, .. } = *grant;
        if at.is_none() && !self.is_linked() {
            // It has not been told yet.
            self.notes.debit = self.notes.debit.minus(charged.minus(*actual)).plus(actual.minus(charged));
        } else {
            self.notes.settles.push(Settled { at, charged_at, charged, actual: *actual });
        }
        if self.held.is_some() && !self.for_slot && !charged.minus(*actual).is_free() {
            // What is given back may be what is waited for: who is held up asks with the same message.
            self.go_on();
        }
    }

    pub(super) fn note_cooldown(&mut self, cooldown: wire::Cooldown) {
        self.notes.cooldowns.push(cooldown);
    }

    pub(super) fn note_spent(&mut self, spent: Option<Spent>, now: Nanos) {
        let spent = spent.map_or(wire::Spent { lasts: 0, resets_at: None, dimension: None }, |spent| wire::Spent {
            lasts: spent.until.saturating_sub(now).max(1_000),
            resets_at: spent.exhausted.resets_at,
            dimension: spent.exhausted.dimension,
        });
        if spent.lasts == 0 {
            self.back = Some(now);
        }
        self.notes.spent = Some(spent);
    }

    /// Tells of the speeds and amounts that answers of the provider have changed.
    pub(super) fn note_learned(&mut self, ledger: &Ledger) {
        if self.whole.is_some() {
            return;
        }
        let learned = ledger.learned();
        // Of the other rates another process may have heard more.
        let news: Vec<_> = learned.iter().filter(|one| !self.learned.contains(one)).copied().collect();
        if news.is_empty() {
            return;
        }
        self.learned = learned;
        self.notes.append(Notes { learned: news, edition: Some(self.edition), ..Notes::default() });
    }

    /// The store has these rates from now on, of which no answer has said anything yet, in the places of others.
    fn has_rates(&mut self, rates: &[(Dimension, Rate)], places: Places) {
        self.learned.retain(|one| !places.has(one.dimension));
        let in_places = rates.iter().filter(|(dimension, _)| places.has(*dimension));
        self.learned.extend(in_places.map(|&(dimension, rate)| Learned::nothing(dimension, rate)));
        self.told = rates.to_vec();
    }

    /// Tells what the provider counts of rates that were found out just now.
    pub(super) fn note_counted(&mut self, mut counted: Vec<Counted>) {
        self.notes.counted.append(&mut counted);
    }

    /// Someone has left the queue.
    pub(super) fn forget(&mut self, ticket: Ticket) {
        if !self.hasty.is_empty() {
            self.hasty.remove(&ticket);
        }
        if !self.deadlines.is_empty() {
            self.deadlines.remove(&ticket);
        }
        if self.held == Some(ticket) {
            self.go_on();
        }
    }

    /// Nobody is held up any more: who is next may ask.
    fn go_on(&mut self) {
        (self.paused, self.for_slot, self.held, self.not_before, self.by_own_use) = (None, false, None, 0, 0);
    }

    /// Whether a call's time to wait is over before that, or so close to it that it makes no difference.
    fn gives_up_before(&self, ticket: Ticket, at: Nanos) -> bool {
        self.deadlines.get(&ticket).is_some_and(|deadline| deadline.saturating_sub(2 * STEP) < at)
    }

    /// How long a call is ready to wait, in steps, so that calls that come together are told together.
    fn patience(&self, ticket: Ticket, now: Nanos) -> Option<Micros> {
        if self.hasty.contains(&ticket) {
            return Some(0);
        }
        let left = self.deadlines.get(&ticket)?.saturating_sub(now);
        let left = left - left % STEP;
        (left < LONG).then(|| Micros::try_from(left / 1_000).unwrap_or(Micros::MAX))
    }

    /// The whole of which this process goes on with its share, if it does: limits are found out for that.
    pub(super) fn whole(&mut self) -> Option<&mut Ledger> {
        self.whole.as_mut().map(|(whole, _)| whole)
    }

    fn unavailable(&self) -> Refusal {
        Refusal::Unavailable(self.away.clone().unwrap_or_else(|| "".into()))
    }

    /// Whether nothing may leave.
    fn is_shut(&self) -> bool {
        self.away.is_some() && (self.on_failure == OnFailure::Closed || self.misconfigured && !self.is_open())
    }

    fn is_open(&self) -> bool {
        self.away.is_some() && self.on_failure == OnFailure::Open
    }
}

impl<T: Default> Gate<T> {
    /// A gate of that make whose calls are decided upon elsewhere, as long as the store can be reached.
    pub fn remote(config: Config, on_failure: OnFailure, now: Nanos) -> Self {
        let jitter = config.network_jitter;
        let mut gate = Self::new(config, now);
        let (learned, told) = (gate.books.ledger.learned(), gate.books.ledger.rates());
        gate.remote = Some(Box::new(Remote {
            on_failure,
            away: None,
            since: 0,
            misconfigured: false,
            members: 1,
            whole: None,
            notes: Notes::default(),
            hasty: HashSet::new(),
            deadlines: HashMap::new(),
            paused: None,
            for_slot: false,
            not_before: 0,
            held: None,
            by_own_use: 0,
            appetite: APPETITE.1,
            granting: None,
            learned,
            told,
            edition: 0,
            jitter,
            back: None,
        }));
        gate
    }

    /// Whether a store at a distance decides now.
    #[inline]
    pub(super) fn is_linked(&self) -> bool {
        self.remote.as_ref().is_some_and(|remote| remote.is_linked())
    }

    /// Whether everything may leave, since the store is away.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.remote.as_ref().is_some_and(|remote| remote.is_open())
    }

    /// The limits as a store at a distance keeps them.
    pub fn limits(&self) -> Limits {
        let remote = self.remote.as_ref();
        let whole = remote.and_then(|remote| remote.whole.as_ref());
        let (ledger, concurrency) = match whole {
            Some((ledger, concurrency)) => (ledger, *concurrency),
            None => (&self.books.ledger, self.books.concurrency),
        };
        let discovery = self.discovery.as_ref();
        let found = discovery.map_or(Places::default(), |discovery| discovery.open().iter().copied().collect());
        let named = |dimension: &Dimension| discovery.is_some_and(|discovery| discovery.is_told(*dimension));
        Limits {
            rates: ledger.rates(),
            concurrency: if concurrency == u64::MAX { 0 } else { concurrency },
            jitter: remote.and_then(|remote| remote.jitter),
            owned: Places::ALL.without(found),
            found,
            told: Dimension::ALL.into_iter().filter(named).collect(),
        }
    }

    /// The answer to a request, as far as no store need be asked; nothing where the books here decide.
    #[cold]
    pub(super) fn remote_answer(&mut self, now: Nanos, cost: &Cost, request: &Request<'_>) -> Answer {
        let Some(remote) = self.remote.as_ref() else { return Answer::Here };
        if remote.is_shut() {
            let refusal = remote.unavailable();
            self.books.counts.refused += 1;
            return Answer::Now(Admission::Refused(refusal));
        }
        if remote.is_open() || remote.is_linked() && request.nested && cost.is_free() {
            return Answer::Now(Admission::Granted(self.grant(*cost, None, !request.nested, now, now, 0)));
        }
        if remote.is_linked() { Answer::Later } else { Answer::Here }
    }

    /// Queues a call to be asked for. One that leaves now or never is asked for as well, unless others wait.
    pub(super) fn wait_remote(&mut self, now: Nanos, request: &Request<'_>) -> Admission {
        let (cost, priority) = (request.cost.clamped(), request.place());
        let key = self.key(request, now);
        let waiting = self.queue.len() - self.queue.lent();
        let held_up = waiting > 0 && !self.queue.is_clear(priority);
        let least = self.least_wait(&cost, priority, key, now);
        let not_before = self.remote.as_ref().map_or(0, |remote| remote.not_before);
        // Who comes after others leaves no earlier than they. Of anyone else only the store knows: it is asked.
        let refusal = match request.timeout {
            Some(timeout) if held_up && (timeout == 0 || least.max(not_before.saturating_sub(now)) > timeout) => {
                Some(Refusal::Timeout(self.as_told(least, now)))
            }
            _ if held_up && waiting >= self.max_waiting => Some(Refusal::QueueFull(waiting)),
            _ => None,
        };
        if let Some(refusal) = refusal {
            self.forget(key, now);
            return Admission::Refused(self.count_refusal(refusal));
        }
        let ticket = self.queue.push(cost, now, priority, key, T::default());
        if let Some(state) = key.and_then(|key| self.keys.get(key)) {
            state.waiting += 1;
        }
        if let (Some(timeout), Some(remote)) = (request.timeout, &mut self.remote) {
            if timeout == 0 {
                remote.hasty.insert(ticket);
            } else {
                let deadline = now.saturating_add(timeout);
                remote.deadlines.insert(ticket, deadline);
                self.deadlines.push(std::cmp::Reverse((deadline, ticket)));
            }
        }
        Admission::Queued(ticket)
    }

    /// A wait that this process's own use explains, and what the store said of the one that is held up.
    pub(super) fn as_told(&self, wait: Nanos, now: Nanos) -> Nanos {
        let Some(remote) = &self.remote else { return wait };
        let later = remote.not_before.saturating_sub(remote.by_own_use.max(now));
        wait.saturating_add(later).max(remote.not_before.saturating_sub(now))
    }

    fn count_refusal(&mut self, refusal: Refusal) -> Refusal {
        match refusal {
            Refusal::Timeout(_) => self.books.counts.timeouts += 1,
            _ => self.books.counts.refused += 1,
        }
        refusal
    }

    /// What is to be told to the store, with those who ask next.
    pub fn outgoing(&mut self, now: Nanos) -> Notes {
        let now = self.tick(now);
        let linked = self.is_linked();
        let Some(remote) = &mut self.remote else { return Notes::default() };
        let mut notes = std::mem::take(&mut remote.notes);
        while linked && self.queue.lent() < remote.appetite {
            let ledger = &self.books.ledger;
            let Some(next) = self.queue.next(|cost| ledger.service_time(cost)) else { break };
            if remote.paused.is_some_and(|paused| next.priority <= paused) {
                break;
            }
            self.queue.lend(next.ticket, |cost| ledger.service_time(cost));
            let slot = next.priority < NESTED / 2;
            let patience = remote.patience(next.ticket, now);
            notes.asks.push((next.ticket, Ask { cost: next.cost, slot, patience }));
            if self.queue.lent() == remote.appetite {
                remote.appetite = (remote.appetite * 2).min(APPETITE.2);
                break;
            }
        }
        notes
    }

    /// Takes in what the store decided. `settled` takes what became of those who waited.
    pub fn hear(&mut self, now: Nanos, event: Event, settled: &mut Vec<(T, Outcome)>) {
        let now = self.tick(now);
        let Some(remote) = &mut self.remote else { return };
        match event {
            Event::Granted(granted) => {
                for (ticket, at, ask) in granted {
                    self.leave_remote(ticket, at, &ask, now, settled);
                }
            }
            Event::Denied(denied, others) => self.deny(&denied, others, now, settled),
            Event::Ready => remote.go_on(),
            Event::Members(members) => {
                remote.members = members.max(1);
                if let Some(discovery) = &mut self.discovery {
                    discovery.share_with(remote.members);
                }
            }
            Event::Limits(limits, edition) => self.adopt(&limits, edition, now, settled),
            Event::Back { members, lost } => {
                remote.members = members.max(1);
                let since = remote.away.take().map_or(now, |_| remote.since);
                remote.misconfigured = false;
                remote.go_on();
                let whole = remote.whole.take();
                let own = whole.as_ref().map_or(&self.books.ledger, |(whole, _)| whole);
                if lost {
                    // What left since is told as that.
                    let before = |left: &Left| left.ago >= now.saturating_sub(since);
                    remote.notes.restores = own.left(now).into_iter().filter(before).collect();
                }
                if let Some((whole, concurrency)) = whole {
                    let share = std::mem::replace(&mut self.books.ledger, whole);
                    self.books.concurrency = concurrency;
                    self.books.ledger.count_left(&share.left(now), now);
                }
            }
            Event::Away { why, misconfigured } => self.part_with(why, misconfigured, now, settled),
            Event::Cooling(until) => {
                self.books.ledger.cool_down(until);
                if let Some((whole, _)) = &mut remote.whole {
                    whole.cool_down(until);
                }
            }
            Event::Spent(spent, as_of) => {
                let until = now.saturating_add(spent.lasts);
                let is_old = remote.back.is_some_and(|back| as_of <= back);
                if !is_old && self.books.spent.is_none_or(|known| known.until < until.saturating_sub(PROBE)) {
                    let exhausted = Exhausted { resets_at: spent.resets_at, dimension: spent.dimension };
                    let probe_at = now.saturating_add(PROBE);
                    self.books.spent = Some(Spent { exhausted, since: now, until, probe_at });
                    self.fail_all(exhausted, now, settled);
                }
            }
        }
    }

    /// The store is away, or the process is about to end.
    fn part_with(&mut self, why: Arc<str>, misconfigured: bool, now: Nanos, settled: &mut Vec<(T, Outcome)>) {
        let lent = if self.queue.lent() > 0 { self.queue.pick(|_| true) } else { Vec::new() };
        for ticket in lent.into_iter().rev() {
            self.queue.take_back(ticket);
        }
        let Some(remote) = &mut self.remote else { return };
        let before = remote.away.replace(why);
        if before.is_none() {
            remote.since = now;
        }
        remote.misconfigured = misconfigured;
        remote.go_on();
        remote.appetite = APPETITE.1;
        if remote.is_shut() {
            let refusal = remote.unavailable();
            for ticket in self.queue.pick(|_| true) {
                if let Some(payload) = self.leave(ticket, now) {
                    self.books.counts.refused += 1;
                    settled.push((payload, Err(refusal.clone())));
                }
            }
            return;
        }
        if before.is_none() && remote.on_failure == OnFailure::Share {
            let rates: Vec<_> = self.books.ledger.rates();
            let share = rates.iter().map(|&(dimension, rate)| (dimension, share(rate, remote.members)));
            let mut ledger = Ledger::new(&share.collect::<Vec<_>>(), remote.jitter, now);
            ledger.empty(now);
            ledger.cool_down(self.books.ledger.cooldown());
            let whole = std::mem::replace(&mut self.books.ledger, ledger);
            remote.whole = Some((whole, self.books.concurrency));
            if self.books.concurrency != u64::MAX {
                self.books.concurrency = (self.books.concurrency / remote.members).max(1);
            }
        }
        let hasty = std::mem::take(&mut remote.hasty);
        self.serve(now, None, settled);
        for ticket in hasty {
            if let Some(payload) = self.leave(ticket, now) {
                self.books.counts.timeouts += 1;
                settled.push((payload, Err(Refusal::Timeout(0))));
            }
        }
    }

    fn leave_remote(&mut self, ticket: Ticket, at: Micros, ask: &Ask, now: Nanos, settled: &mut Vec<(T, Outcome)>) {
        let waiting = self.queue.get(ticket);
        let Some((waiting, payload)) = waiting.and_then(|waiting| Some((waiting, self.queue.remove(ticket)?))) else {
            // It is gone: what it was given goes back.
            if let Some(remote) = &mut self.remote {
                let actual = Cost::default();
                remote.notes.settles.push(Settled { at: Some(at), charged_at: now, charged: ask.cost, actual });
                remote.notes.released += u64::from(ask.slot);
            }
            return;
        };
        if let Some(remote) = &mut self.remote {
            remote.forget(ticket);
            remote.granting = Some(at);
        }
        let waited = now.saturating_sub(waiting.arrived);
        self.waits.record(waited);
        if let Some(state) = waiting.key.and_then(|key| self.keys.get(key)) {
            state.waiting -= 1;
        }
        let grant = self.grant(waiting.cost, waiting.key, ask.slot, now, now, waited);
        self.forget(waiting.key, now);
        settled.push((payload, Ok(grant)));
    }

    fn deny(&mut self, denied: &[(Ticket, Denial)], others: usize, now: Nanos, settled: &mut Vec<(T, Outcome)>) {
        let mut refused = Vec::new();
        let mut held_up = None;
        // Who comes after the first that must wait leaves no earlier.
        let is_waiting =
            |remote: &Remote, ticket, at| !remote.hasty.contains(&ticket) && !remote.gives_up_before(ticket, at);
        let first = self.remote.as_ref().and_then(|remote| {
            denied.iter().find_map(|&(ticket, denial)| match denial {
                Denial::Later(at) if self.queue.get(ticket).is_some() && is_waiting(remote, ticket, at) => Some(at),
                _ => None,
            })
        });
        for &(ticket, denial) in denied.iter().rev() {
            let Some(waiting) = self.queue.get(ticket) else { continue };
            let Some(remote) = &mut self.remote else { return };
            let hasty = denial != Denial::Lost && remote.hasty.contains(&ticket);
            let refusal = match denial {
                // Others have changed what was found out meanwhile: it is asked for again with what that comes to.
                Denial::Oversize(..) if remote.notes.limits.is_some() => None,
                Denial::Oversize(dimension, limit) => {
                    let cost = waiting.cost.get(dimension);
                    Some(Refusal::Oversize(Oversize { dimension, cost, limit }))
                }
                Denial::Later(at) if hasty || remote.gives_up_before(ticket, at) => {
                    Some(Refusal::Timeout(at.saturating_sub(now)))
                }
                Denial::Behind if hasty => Some(Refusal::Timeout(first.unwrap_or(0).saturating_sub(now))),
                Denial::Behind => first
                    .filter(|&at| remote.gives_up_before(ticket, at))
                    .map(|at| Refusal::Timeout(at.saturating_sub(now))),
                _ if hasty => Some(Refusal::Timeout(0)),
                _ => None,
            };
            if let Some(refusal) = refusal {
                refused.push((ticket, refusal));
                continue;
            }
            self.queue.take_back(ticket);
            match denial {
                Denial::Later(at) => held_up = Some((ticket, waiting, at)),
                Denial::NoSlot => held_up = Some((ticket, waiting, 0)),
                _ => {}
            }
        }
        let by_own_use = held_up
            .map_or(0, |(_, waiting, _)| self.books.ledger.earliest_behind(&Cost::default(), &waiting.cost, now));
        let Some(remote) = &mut self.remote else { return };
        if let Some((ticket, Waiting { priority, .. }, at)) = held_up
            && remote.away.is_none()
        {
            remote.paused = Some(remote.paused.map_or(priority, |paused| paused.max(priority)));
            (remote.for_slot, remote.not_before, remote.held) = (at == 0, at, Some(ticket));
            remote.by_own_use = by_own_use;
            remote.appetite = (2 * others).max(APPETITE.0);
        }
        refused.reverse();
        // They have been asked for, and must wait: no more than may.
        let mut waiting = self.queue.len() - self.queue.lent();
        for &(ticket, _) in denied.iter().rev() {
            if waiting <= self.max_waiting || held_up.is_none() {
                break;
            }
            if self.queue.get(ticket).is_some() && !refused.iter().any(|(other, _)| *other == ticket) {
                waiting -= 1;
                refused.push((ticket, Refusal::QueueFull(self.max_waiting)));
            }
        }
        for (ticket, refusal) in refused {
            if let Some(payload) = self.leave(ticket, now) {
                let refusal = self.count_refusal(refusal);
                settled.push((payload, Err(refusal)));
            }
        }
        if !self.is_linked() {
            self.serve(now, None, settled);
        }
    }

    /// As [`Gate::disown`]: a forked child asks for itself.
    pub(super) fn disown_remote(&mut self) {
        let Some(remote) = &mut self.remote else { return };
        if let Some((whole, concurrency)) = remote.whole.take() {
            self.books.ledger = whole;
            self.books.concurrency = concurrency;
        }
        remote.notes = Notes::default();
        remote.hasty.clear();
        remote.deadlines.clear();
        (remote.away, remote.misconfigured) = (None, false);
        remote.go_on();
    }

    /// Tells the store that some of the limits are others now.
    pub(super) fn note_limits(&mut self, owned: Places) {
        if self.remote.is_some() {
            self.note_changed(Limits { owned, found: Places::default(), ..self.limits() });
        }
    }

    fn note_changed(&mut self, limits: Limits) {
        let Some(remote) = &mut self.remote else { return };
        remote.go_on();
        remote.has_rates(&limits.rates, limits.owned.and(limits.found));
        let notes = Notes { limits: Some(limits), edition: Some(remote.edition), ..Notes::default() };
        remote.notes.append(notes);
    }

    /// Tells the store what was found out, if it was.
    pub(super) fn note_found(&mut self) {
        let Some(remote) = &self.remote else { return };
        let whole = remote.whole.as_ref().map_or(&self.books.ledger, |(whole, _)| whole);
        let rates = whole.rates();
        if rates == remote.told {
            return;
        }
        let of = |rates: &[(Dimension, Rate)], dimension| {
            let mut of: Vec<_> = rates.iter().filter(|(of, _)| *of == dimension).map(|&(_, rate)| rate).collect();
            of.sort_unstable_by_key(|rate| (rate.period(), rate.amount(), rate.burst()));
            of
        };
        let is_other = |dimension: &Dimension| of(&rates, *dimension) != of(&remote.told, *dimension);
        let found: Places = Dimension::ALL.into_iter().filter(is_other).collect();
        self.note_changed(Limits { owned: Places::default(), found, ..self.limits() });
    }

    /// Goes on with the limits that another process has given, or found out.
    fn adopt(&mut self, limits: &Limits, edition: i64, now: Nanos, settled: &mut Vec<(T, Outcome)>) {
        self.hold_up(now);
        for dimension in Dimension::ALL {
            let (rates, known) = (limits.of(dimension), self.limits().of(dimension));
            if rates.len() != known.len() || known.iter().any(|rate| !rates.contains(rate)) {
                self.update_share(dimension, &rates, now);
            }
        }
        if limits.concurrency != self.limits().concurrency {
            self.set_share_concurrency((limits.concurrency > 0).then_some(limits.concurrency));
        }
        if let Some(discovery) = &mut self.discovery {
            discovery.adopt_from(limits, now);
        }
        let rates = self.limits().rates;
        if let Some(remote) = &mut self.remote {
            remote.edition = edition;
            remote.has_rates(&rates, Places::ALL);
            // What answers said of rates that are still these is told anew: the store may have taken it to be of others.
            remote.note_learned(&self.books.ledger);
            remote.go_on();
        }
        self.fail_hopeless(now, settled);
    }

    /// What was found out holds for the share of the limits that this process goes on with, if it does.
    pub(super) fn share_found(&mut self, now: Nanos) {
        let Some(remote) = &self.remote else { return };
        let Some((whole, _)) = &remote.whole else { return };
        let rates: Vec<_> = whole.rates();
        let members = remote.members;
        for dimension in Dimension::ALL {
            let of = rates.iter().filter(|(of, _)| *of == dimension).map(|&(_, rate)| share(rate, members));
            self.books.ledger.update(dimension, &of.collect::<Vec<_>>(), now);
        }
    }

    pub(super) fn set_share_concurrency(&mut self, concurrency: Option<u64>) {
        let remote = self.remote.as_mut();
        let share = remote.and_then(|remote| Some((remote.members, &mut remote.whole.as_mut()?.1)));
        let concurrency = match share {
            Some((members, whole)) => {
                *whole = concurrency.unwrap_or(u64::MAX);
                concurrency.map(|concurrency| (concurrency / members).max(1))
            }
            None => concurrency,
        };
        self.books.set_concurrency(concurrency);
    }

    /// What a rate's dimension may use while the store is away is decided by this process's share of it.
    pub(super) fn update_share(&mut self, dimension: Dimension, rates: &[Rate], now: Nanos) {
        if let Some(remote) = &mut self.remote
            && let Some((whole, _)) = &mut remote.whole
        {
            whole.update(dimension, rates, now);
            let share: Vec<_> = rates.iter().map(|&rate| share(rate, remote.members)).collect();
            self.books.ledger.update(dimension, &share, now);
        } else {
            self.books.ledger.update(dimension, rates, now);
        }
    }
}

/// A rate's share for one of so many: as much in that many times the period, so that a large call stays possible.
fn share(rate: Rate, members: u64) -> Rate {
    let Some(period) = rate.period().checked_mul(members) else { return rate };
    let Ok(slow) = Rate::new(rate.amount(), period.min(Rate::MAX_PERIOD)) else { return rate };
    let burst = (rate.burst() / members).max(1);
    slow.with_burst(burst).unwrap_or(slow).with_window(rate.window())
}
