//! Nothing leaks: random interleavings of everything a gate can be asked, checked against a plain model of who waits,
//! who holds what and what is still owed.
//!
//! The core has no threads and no locks, so loom and shuttle have nothing to explore here: each call is one step under
//! the single lock that the bindings hold around a gate. What remains is the order of the steps, and that is random.

mod support;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use penstock::clock::{Nanos, SECOND};
use penstock::cost::{Cost, Dimension};
use penstock::gate::{Admission, Config, Gate, Grant, Outcome, Refusal, Request};
use penstock::keys::PerKey;
use penstock::queue::Ticket;
use penstock::rate::Rate;
use penstock::stats::Counts;
use support::{CALL, Chance, MILLISECOND, MINUTE, rate};

const KEYS: [&str; 5] = ["ada", "ben", "cleo", "dot", "eve"];

/// Those who are served first come first served among themselves.
type Flow = (bool, i32, Option<&'static str>);

#[derive(Clone, Copy)]
struct Waiter {
    ticket: Ticket,
    flow: Flow,
    cost: Cost,
    deadline: Option<Nanos>,
}

struct Holder {
    grant: Grant,
    flow: Flow,
}

struct World {
    gate: Gate<u64>,
    chance: Chance,
    per_key: Option<PerKey>,
    concurrency: Option<u64>,
    now: Nanos,
    cooldown: Nanos,
    next_id: u64,
    waiting: BTreeMap<u64, Waiter>,
    flows: HashMap<Flow, VecDeque<u64>>,
    held: Vec<Holder>,
    /// Whose fate is known: nobody meets two.
    done: HashSet<u64>,
    /// What a disown left behind: names and permits of another process.
    ghosts: Vec<(Ticket, Option<Grant>)>,
    counts: Counts,
    settled: Vec<(u64, Outcome)>,
}

fn random_rate(chance: &mut Chance) -> Rate {
    let period = chance.pick(&[MILLISECOND, 100 * MILLISECOND, SECOND, 7 * SECOND, MINUTE]);
    let rate = rate(chance.between(1, 40), period).with_window(!chance.one_in(3));
    let amount = rate.amount();
    if chance.one_in(2) { rate.with_burst(chance.between(1, amount)).unwrap() } else { rate }
}

fn random_rates(chance: &mut Chance, most: u64) -> Vec<(Dimension, Rate)> {
    (0..chance.below(most + 1)).map(|_| (chance.pick(&Dimension::ALL), random_rate(chance))).collect()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let concurrency = chance.one_in(2).then(|| chance.between(1, 6));
        let per_key = chance.one_in(2).then(|| PerKey {
            rates: random_rates(&mut chance, 2),
            concurrency: chance.one_in(2).then(|| chance.between(1, 3)),
        });
        let config = Config {
            rates: random_rates(&mut chance, 4),
            concurrency,
            per_key: per_key.clone(),
            network_jitter: chance.one_in(2).then(|| chance.below(SECOND)),
            max_waiting: chance.one_in(3).then(|| usize::try_from(chance.below(20)).unwrap()),
            discover: None,
        };
        Self {
            gate: support::gate(config, 0),
            chance,
            per_key,
            concurrency,
            now: 0,
            cooldown: 0,
            next_id: 1,
            waiting: BTreeMap::new(),
            flows: HashMap::new(),
            held: Vec::new(),
            done: HashSet::new(),
            ghosts: Vec::new(),
            counts: Counts::default(),
            settled: Vec::new(),
        }
    }

    fn slots(&self, key: Option<&str>) -> u64 {
        let counted = |holder: &&Holder| !holder.flow.0 && (key.is_none() || holder.flow.2 == key);
        self.held.iter().filter(counted).count() as u64
    }

    /// Someone may leave: now, not before all others of its flow, and with a slot to spare.
    fn granted(&mut self, grant: Grant, flow: Flow) {
        let (nested, priority, key) = flow;
        assert!(self.now >= self.cooldown, "left during a cooldown");
        assert_eq!(grant.charged_at, self.now);
        if !nested {
            assert!(self.concurrency.is_none_or(|most| self.slots(None) < most), "more slots than there are");
            let per_key = self.per_key.as_ref().and_then(|limits| limits.concurrency);
            assert!(key.is_none() || per_key.is_none_or(|most| self.slots(key) < most), "more slots than a key has");
        }
        if self.per_key.is_none() {
            // With limits of their own, keys may be set aside; without, nobody passes a higher priority.
            let passed = self.waiting.values().any(|waiter| (waiter.flow.0, waiter.flow.1) > (nested, priority));
            assert!(!passed, "passed a higher priority");
        }
        self.held.push(Holder { grant, flow });
        self.counts.granted += 1;
    }

    /// Takes a waiter out of the model.
    fn leave(&mut self, id: u64) -> Waiter {
        let waiter = self.waiting.remove(&id).expect("settled, but did not wait");
        assert!(self.done.insert(id), "settled twice");
        self.flows.get_mut(&waiter.flow).unwrap().retain(|&other| other != id);
        waiter
    }

    fn collect(&mut self) {
        for (id, outcome) in std::mem::take(&mut self.settled) {
            match outcome {
                Ok(grant) => {
                    let flow = self.waiting[&id].flow;
                    assert_eq!(self.flows[&flow].front(), Some(&id), "passed an earlier one of its flow");
                    let waiter = self.leave(id);
                    assert_eq!(grant.cost, waiter.cost);
                    self.granted(grant, flow);
                }
                Err(Refusal::Timeout(_)) => {
                    let waiter = self.leave(id);
                    assert!(waiter.deadline.is_some_and(|deadline| deadline <= self.now), "expired too early");
                    self.counts.timeouts += 1;
                }
                Err(Refusal::Oversize(oversize)) => {
                    let waiter = self.leave(id);
                    assert!(waiter.cost.get(oversize.dimension) > oversize.limit);
                    self.counts.refused += 1;
                }
                Err(Refusal::Exhausted(_) | Refusal::QueueFull(_) | Refusal::Store(_) | Refusal::Unavailable(_)) => {
                    panic!("told of a full queue after joining it")
                }
            }
        }
    }

    fn pump(&mut self) {
        self.gate.pump(self.now, &mut self.settled);
        self.collect();
        let late = self.waiting.values().any(|waiter| waiter.deadline.is_some_and(|deadline| deadline <= self.now));
        assert!(!late, "waits beyond its deadline");
        self.gate.pump(self.now, &mut self.settled);
        assert!(self.settled.is_empty(), "a second pump at the same time set someone free");
        self.check();
    }

    fn check(&mut self) {
        assert_eq!(self.gate.in_flight(), self.held.len() as u64);
        assert_eq!(self.gate.waiting(), self.waiting.len());
        assert_eq!(self.gate.counts(), self.counts);
        if let Some(event) = self.gate.next_event() {
            assert!(event > self.now, "a busy loop: told {event} at {}", self.now);
        }
    }

    fn random_cost(&mut self) -> Cost {
        let mut cost = if self.chance.one_in(5) { Cost::default() } else { CALL };
        for dimension in [Dimension::Tokens, Dimension::InputTokens, Dimension::OutputTokens] {
            if self.chance.one_in(2) {
                cost = cost.with(dimension, self.chance.below(12));
            }
        }
        if self.chance.one_in(50) {
            cost = cost.with(Dimension::Tokens, self.chance.next());
        }
        cost
    }

    fn admit(&mut self) {
        let key = self.chance.one_in(2).then(|| self.chance.pick(&KEYS));
        let priority = if self.chance.one_in(4) { self.chance.pick(&[i32::MIN, -1, 1, i32::MAX]) } else { 0 };
        let timeout = match self.chance.below(4) {
            0 => Some(0),
            1 => Some(self.chance.below(2 * SECOND)),
            2 => Some(self.chance.below(2 * MINUTE)),
            _ => None,
        };
        let nested = self.chance.one_in(12);
        let cost = self.random_cost();
        let flow = (nested, priority, key);
        let request = Request { cost, key, priority, timeout, nested };
        let id = self.next_id;
        self.next_id += 1;
        let waiting = self.waiting.len();
        let admission = self.gate.admit(self.now, &request, &mut self.settled);
        self.collect();
        match admission {
            Admission::Granted(grant) => {
                let passed = self.flows.get(&flow).is_some_and(|others| !others.is_empty());
                assert!(!passed, "a newcomer passed an earlier one of its flow");
                assert_eq!(grant.waited, 0);
                self.done.insert(id);
                self.granted(grant, flow);
            }
            Admission::Queued(ticket) => {
                assert_ne!(timeout, Some(0), "now or never, but waits");
                *self.gate.payload(ticket).unwrap() = id;
                let deadline = timeout.map(|timeout| self.now + timeout);
                self.waiting.insert(id, Waiter { ticket, flow, cost: cost.clamped(), deadline });
                self.flows.entry(flow).or_default().push_back(id);
            }
            Admission::Refused(Refusal::Timeout(wait)) => {
                assert!(timeout == Some(0) || timeout.is_some_and(|timeout| wait > timeout), "refused for no reason");
                self.counts.timeouts += 1;
            }
            Admission::Refused(Refusal::QueueFull(told)) => {
                assert!(told <= waiting);
                self.counts.refused += 1;
            }
            Admission::Refused(Refusal::Oversize(_)) => self.counts.refused += 1,
            Admission::Refused(Refusal::Exhausted(_) | Refusal::Store(_) | Refusal::Unavailable(_)) => {
                panic!("no provider said anything")
            }
        }
        self.check();
    }

    fn random_held(&mut self) -> Option<usize> {
        (!self.held.is_empty()).then(|| usize::try_from(self.chance.below(self.held.len() as u64)).unwrap())
    }

    fn settle(&mut self) {
        let Some(index) = self.random_held() else { return };
        for _ in 0..self.chance.between(1, 2) {
            let actual = self.random_cost();
            let actual = if self.chance.one_in(2) { self.held[index].grant.cost.minus(actual) } else { actual };
            // A debit of everything that fits an integer would take the age of the world to pay back.
            let actual = actual.with(Dimension::Tokens, actual.tokens.min(60));
            self.gate.settle(self.now, &mut self.held[index].grant, &actual);
            assert_eq!(self.held[index].grant.cost, actual);
        }
    }

    fn give_back(&mut self, unused: bool) {
        let Some(index) = self.random_held() else { return };
        let Holder { grant, .. } = self.held.swap_remove(index);
        if unused {
            self.gate.abandon(self.now, grant);
            self.counts.cancelled += 1;
            self.counts.abandoned += 1;
        } else {
            self.gate.release(self.now, &grant);
        }
    }

    fn cancel(&mut self) {
        let ids: Vec<_> = self.waiting.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = self.chance.pick(&ids);
        let Waiter { ticket, .. } = self.leave(id);
        assert_eq!(self.gate.cancel(self.now, ticket), Some(id));
        assert_eq!(self.gate.cancel(self.now, ticket), None);
        self.counts.cancelled += 1;
    }

    fn disown(&mut self) {
        self.gate.disown();
        self.ghosts.extend(self.waiting.values().map(|waiter| (waiter.ticket, None)));
        let anyone = self.ghosts.first().map(|&(ticket, _)| ticket);
        if let Some(ticket) = anyone {
            self.ghosts.extend(self.held.iter().map(|holder| (ticket, Some(holder.grant))));
        }
        self.waiting.clear();
        self.flows.clear();
        self.held.clear();
    }

    /// What a forked child's garbage collector does to the parent's waiters and permits.
    fn haunt(&mut self) {
        let Some((ticket, grant)) = self.ghosts.pop() else { return };
        assert_eq!(self.gate.cancel(self.now, ticket), None, "a ticket names one waiter, and never another");
        assert!(self.gate.payload(ticket).is_none());
        if let Some(mut grant) = grant {
            let before = self.gate.levels(self.now);
            self.gate.settle(self.now, &mut grant, &Cost::default());
            self.gate.release(self.now, &grant);
            assert_eq!(self.gate.levels(self.now), before, "another process's permit gave something back");
        }
    }

    fn advance(&mut self) {
        let event = self.gate.next_event();
        match (self.chance.below(4), event) {
            (0, Some(event)) if event > self.now + 1 => {
                // Before the told time there is nothing to do.
                self.now = self.chance.between(self.now + 1, event - 1);
                self.gate.pump(self.now, &mut self.settled);
                assert!(self.settled.is_empty(), "someone was free at {}, before the told {event}", self.now);
                self.check();
            }
            (1 | 2, Some(event)) => {
                let before = self.waiting.len();
                self.now = event;
                self.pump();
                let freed = self.waiting.len() < before;
                let next = self.gate.next_event();
                assert!(freed || next.is_none_or(|next| next > event), "told {event} for nothing");
            }
            _ => {
                let far = self.chance.pick(&[MILLISECOND, 50 * MILLISECOND, SECOND, 10 * SECOND]);
                self.now += self.chance.below(far);
                self.pump();
            }
        }
    }

    fn step(&mut self) {
        match self.chance.below(100) {
            0..40 => return self.admit(), // needs no pump
            40..62 => return self.advance(),
            62..66 => self.settle(),
            66..84 => self.give_back(false),
            84..88 => self.give_back(true),
            88..92 => self.cancel(),
            92..94 => {
                let period = self.chance.below(3 * SECOND);
                self.gate.cool_down(self.now, period);
                self.cooldown = self.cooldown.max(self.now + period);
                return self.check();
            }
            94..96 => {
                let dimension = self.chance.pick(&Dimension::ALL);
                let rates: Vec<_> = (0..self.chance.below(3)).map(|_| random_rate(&mut self.chance)).collect();
                self.gate.update(self.now, dimension, &rates, &mut self.settled);
                self.collect();
            }
            96 => {
                self.concurrency = self.chance.one_in(3).then(|| self.chance.between(1, 6));
                self.gate.set_concurrency(self.concurrency);
            }
            97 if self.chance.one_in(20) => self.disown(),
            _ => self.haunt(),
        }
        self.pump();
    }

    /// Nobody new comes and everyone gives back: whoever waits gets through, each at a time that was told.
    fn drain(&mut self) {
        while !self.held.is_empty() || !self.waiting.is_empty() {
            while !self.held.is_empty() {
                self.give_back(false);
            }
            self.pump();
            if self.held.is_empty() && !self.waiting.is_empty() {
                self.now = self.gate.next_event().expect("someone starves: waits, with nothing held and no time told");
                self.pump();
            }
        }
        while !self.ghosts.is_empty() {
            self.haunt();
        }
        self.check();
        assert_eq!(self.gate.next_event(), None);
    }

    /// Whoever is idle is forgotten.
    fn forget(&mut self) {
        if self.per_key.is_none() {
            assert_eq!(self.gate.keys(), 0);
        }
        self.now += 1_000 * MINUTE;
        for i in 0..200 {
            let key = format!("newcomer {i}");
            let request = Request { key: Some(&key), timeout: Some(0), ..Request::default() };
            if let Admission::Granted(grant) = self.gate.admit(self.now, &request, &mut self.settled) {
                self.gate.release(self.now, &grant);
            }
        }
        assert!(self.gate.keys() <= 64, "{} keys are remembered", self.gate.keys());
    }
}

#[test]
fn a_million_random_steps_leave_nothing_behind() {
    const STEPS: u64 = 1_000_000;
    const WORLDS: u64 = 1_000;
    let mut counts = Counts::default();
    for seed in 0..WORLDS {
        let mut world = World::new(seed);
        for _ in 0..STEPS / WORLDS {
            world.step();
        }
        world.drain();
        counts.granted += world.counts.granted;
        counts.cancelled += world.counts.cancelled;
        counts.timeouts += world.counts.timeouts;
        counts.refused += world.counts.refused;
        world.forget();
    }
    // The steps did reach every end.
    assert!(counts.granted > STEPS / 10, "{counts:?}");
    assert!(counts.cancelled.min(counts.timeouts).min(counts.refused) > STEPS / 100, "{counts:?}");
}
