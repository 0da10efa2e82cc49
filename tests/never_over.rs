//! Never over: random schedules through a gate against a brute-force log of what left, summed up anew at each admission
//! for every rate; and the envelope of the buckets over every interval there is.

mod support;

use std::collections::{HashMap, VecDeque};

use penstock::clock::{Nanos, SECOND};
use penstock::cost::{Cost, Dimension};
use penstock::gate::{Admission, Config, Gate, Grant, Outcome, Request};
use penstock::keys::PerKey;
use penstock::ledger::Ledger;
use penstock::rate::Rate;
use support::{CALL, Chance, MILLISECOND, MINUTE, config, rate};

/// Everything that a rate has let leave in its last span: when, how much, and for which call.
struct Oracle {
    dimension: Dimension,
    amount: u64,
    span: Nanos,
    log: VecDeque<(Nanos, u64, u64)>,
}

impl Oracle {
    fn new(dimension: Dimension, rate: &Rate, jitter: Nanos) -> Option<Self> {
        let span = rate.period() + jitter;
        rate.window().then(|| Self { dimension, amount: rate.amount(), span, log: VecDeque::new() })
    }

    fn forget(&mut self, now: Nanos) {
        while self.log.front().is_some_and(|&(at, ..)| at + self.span <= now) {
            self.log.pop_front();
        }
    }

    fn admit(&mut self, id: u64, cost: &Cost, now: Nanos) {
        let cost = cost.get(self.dimension);
        if cost == 0 {
            return;
        }
        self.forget(now);
        let used: u64 = self.log.iter().map(|&(_, amount, _)| amount).sum();
        let Self { amount, span, dimension, .. } = *self;
        assert!(used + cost <= amount, "{used} + {cost} {dimension} in {span} ns at {now}, where {amount} may leave");
        self.log.push_back((now, cost, id));
    }

    fn settle(&mut self, id: u64, charged: &Cost, actual: &Cost, charged_at: Nanos, now: Nanos) {
        let (charged, actual) = (charged.get(self.dimension), actual.get(self.dimension));
        self.forget(now);
        if actual > charged {
            self.log.push_back((now, actual - charged, id));
        } else if now < charged_at + self.span {
            let mut back = charged - actual;
            for entry in self.log.iter_mut().filter(|entry| entry.2 == id) {
                let part = back.min(entry.1);
                entry.1 -= part;
                back -= part;
            }
        }
    }
}

struct Held {
    id: u64,
    grant: Grant,
    key: Option<u64>,
}

struct World {
    gate: Gate<u64>,
    chance: Chance,
    shared: Vec<Oracle>,
    per_key: Vec<(Dimension, Rate)>,
    jitter: Nanos,
    keys: HashMap<u64, Vec<Oracle>>,
    callers: HashMap<u64, Option<u64>>,
    held: Vec<Held>,
    cooldown: Nanos,
    now: Nanos,
    next_id: u64,
    admissions: u64,
}

const DIMENSIONS: [Dimension; 3] = [Dimension::Requests, Dimension::Tokens, Dimension::OutputTokens];

fn random_rate(chance: &mut Chance, dimension: Dimension) -> Rate {
    let amount = if dimension == Dimension::Requests { chance.between(1, 60) } else { chance.between(20, 900) };
    let rate = rate(amount, chance.pick(&[20 * MILLISECOND, SECOND, 10 * SECOND, MINUTE]));
    let burst = match chance.below(3) {
        0 => rate.burst(),
        1 => amount,
        _ => chance.between(1, amount),
    };
    rate.with_burst(burst).unwrap().with_window(!chance.one_in(5))
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let mut rates = |most: u64| -> Vec<(Dimension, Rate)> {
            let mut rate = |_| {
                let dimension = chance.pick(&DIMENSIONS);
                (dimension, random_rate(&mut chance, dimension))
            };
            (0..most).map(&mut rate).collect()
        };
        let shared = rates(seed % 4 + 1);
        let per_key = rates(seed / 4 % 3);
        let jitter = chance.pick(&[0, 50 * MILLISECOND, SECOND]);
        let config = Config {
            rates: shared.clone(),
            concurrency: chance.one_in(3).then(|| chance.between(2, 40)),
            per_key: (!per_key.is_empty()).then(|| PerKey { rates: per_key.clone(), concurrency: None }),
            network_jitter: Some(jitter),
            max_waiting: None,
            discover: None,
        };
        Self {
            gate: support::gate(config, 0),
            shared: shared.iter().filter_map(|(dimension, rate)| Oracle::new(*dimension, rate, jitter)).collect(),
            chance,
            per_key,
            jitter,
            keys: HashMap::new(),
            callers: HashMap::new(),
            held: Vec::new(),
            cooldown: 0,
            now: 0,
            next_id: 1,
            admissions: 0,
        }
    }

    fn oracles(&mut self, key: Option<u64>) -> impl Iterator<Item = &mut Oracle> {
        let Self { shared, per_key, keys, jitter, .. } = self;
        let fresh = || per_key.iter().filter_map(|(dimension, rate)| Oracle::new(*dimension, rate, *jitter)).collect();
        let own: &mut [Oracle] = match key {
            Some(key) => keys.entry(key).or_insert_with(fresh),
            None => &mut [],
        };
        shared.iter_mut().chain(own)
    }

    fn granted(&mut self, id: u64, grant: Grant) {
        assert!(self.now >= self.cooldown, "left during a cooldown");
        let key = self.callers.remove(&id).unwrap();
        let now = self.now;
        for oracle in self.oracles(key) {
            oracle.admit(id, &grant.cost, now);
        }
        self.admissions += 1;
        self.held.push(Held { id, grant, key });
    }

    fn collect(&mut self, settled: Vec<(u64, Outcome)>) {
        for (id, outcome) in settled {
            if let Ok(grant) = outcome {
                self.granted(id, grant);
            }
        }
    }

    fn pump(&mut self) {
        let mut settled = Vec::new();
        self.gate.pump(self.now, &mut settled);
        self.collect(settled);
    }

    fn random_cost(&mut self) -> Cost {
        let cost = tokens(&mut self.chance);
        if self.chance.one_in(10) { cost.with(Dimension::Requests, 0) } else { cost }
    }

    fn admit(&mut self) {
        // Few keys that are busy, and many that come and go.
        let key = match self.chance.below(4) {
            0 => None,
            1 => Some(self.chance.below(300)),
            _ => Some(self.chance.below(4)),
        };
        let name = key.map(|key| format!("key {key}"));
        let request = Request {
            cost: self.random_cost(),
            key: name.as_deref(),
            priority: self.chance.pick(&[0, 0, 0, 1, -1]),
            timeout: self.chance.pick(&[None, Some(0), Some(SECOND), Some(MINUTE)]),
            nested: self.chance.one_in(8),
        };
        let id = self.next_id;
        self.next_id += 1;
        self.callers.insert(id, key);
        let mut settled = Vec::new();
        let admission = self.gate.admit(self.now, &request, &mut settled);
        match admission {
            Admission::Granted(grant) => self.granted(id, grant),
            Admission::Queued(ticket) => *self.gate.payload(ticket).unwrap() = id,
            Admission::Refused(_) => {}
        }
        self.collect(settled);
    }

    /// Settles one that is under way, at random, and mostly gives it back.
    fn end(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let index = usize::try_from(self.chance.below(self.held.len() as u64)).unwrap();
        if self.chance.one_in(2) {
            let Held { id, grant, key } = self.held[index];
            let actual = self.random_cost().with(Dimension::Requests, self.chance.below(2));
            let now = self.now;
            self.gate.settle(now, &mut self.held[index].grant, &actual);
            for oracle in self.oracles(key) {
                oracle.settle(id, &grant.cost, &actual, grant.charged_at, now);
            }
        }
        if !self.chance.one_in(4) {
            let Held { grant, .. } = self.held.swap_remove(index);
            self.gate.release(self.now, &grant);
        }
        self.pump();
    }

    /// Other amounts and bursts. The periods stay: what another period would have counted, nobody has kept.
    fn update(&mut self) {
        let dimension = self.chance.pick(&DIMENSIONS);
        let Self { gate, chance, shared, jitter, .. } = self;
        let levels = gate.levels(self.now);
        let mut change = |old: Rate| {
            if chance.one_in(2) {
                return old;
            }
            let new = rate((old.amount() / 2 + chance.below(old.amount() + 1)).max(20), old.period());
            new.with_window(old.window())
        };
        let of = levels.iter().filter(|level| level.dimension == dimension);
        let mut rates: Vec<_> = of.map(|level| change(level.rate)).collect();
        let mut guarded = shared.iter_mut().filter(|oracle| oracle.dimension == dimension);
        for rate in rates.iter().filter(|rate| rate.window()) {
            let oracle = guarded.next().unwrap();
            assert_eq!(oracle.span, rate.period() + *jitter);
            oracle.amount = rate.amount();
        }
        // Said in another order, they are still the same rates; only two of one period cannot be told apart.
        let mut periods: Vec<_> = rates.iter().map(Rate::period).collect();
        periods.sort_unstable();
        periods.dedup();
        if periods.len() == rates.len() {
            rates.reverse();
        }
        let mut settled = Vec::new();
        gate.update(self.now, dimension, &rates, &mut settled);
        self.collect(settled);
        self.pump();
    }

    fn step(&mut self) {
        match self.chance.below(100) {
            0..45 => self.admit(),
            45..68 => self.end(),
            68 => {
                let period = self.chance.below(SECOND);
                self.gate.cool_down(self.now, period);
                self.cooldown = self.cooldown.max(self.now + period);
            }
            69 => self.update(),
            _ => {
                // On time, late, or at any time at all.
                let late = if self.chance.one_in(2) { self.chance.below(20 * MILLISECOND) } else { 0 };
                let far = self.chance.pick(&[MILLISECOND, SECOND]);
                self.now = match self.gate.next_event() {
                    Some(event) if !self.chance.one_in(3) => event.min(self.now + 30 * SECOND) + late,
                    _ => self.now + self.chance.below(far),
                };
                self.pump();
            }
        }
    }
}

fn tokens(chance: &mut Chance) -> Cost {
    let small = if chance.one_in(10) { chance.below(20) } else { chance.below(4) };
    CALL.with(Dimension::Tokens, small).with(Dimension::OutputTokens, chance.below(5))
}

#[test]
fn a_million_admissions_keep_every_rate_of_every_key() {
    let mut admissions = 0;
    for seed in 0.. {
        let mut world = World::new(seed);
        for _ in 0..10_000 {
            world.step();
        }
        assert!(world.gate.keys() < 1_000, "{} keys are remembered", world.gate.keys());
        admissions += world.admissions;
        if admissions >= 1_000_000 {
            return;
        }
    }
}

/// What left between any two admissions is within the burst and what was refilled meanwhile. A cost above the burst
/// leaves when the bucket is full, so it counts as one burst when it is the last.
fn assert_envelope(rate: &Rate, left: &[(Nanos, u64)]) {
    let (amount, period, burst) = (u128::from(rate.amount()), u128::from(rate.period()), u128::from(rate.burst()));
    for (index, &(first, _)) in left.iter().enumerate() {
        let mut sum = 0;
        for &(at, cost) in &left[index..] {
            let last = u128::from(cost).min(burst);
            // A grant comes on a whole nanosecond; what that one refills counts.
            let most = burst * period + u128::from(at - first + 1) * amount;
            assert!((sum + last) * period <= most, "{rate} burst {burst}: {sum} + {last} from {first} to {at}");
            sum += u128::from(cost);
        }
    }
}

/// The ledger, with timers as late as they like: the buckets keep their envelope on the times at which calls were due.
#[test]
fn buckets_keep_their_envelope_on_due_times() {
    let mut chance = Chance::new(11);
    for _ in 0..300 {
        let rates = [Dimension::Requests, Dimension::Tokens].map(|dimension| {
            let rate = random_rate(&mut chance, dimension);
            (dimension, rate.with_window(false))
        });
        let mut ledger = Ledger::new(&rates, Some(0), 0);
        let (mut now, mut arrived) = (0, 0);
        let mut left = Vec::new();
        for _ in 0..400 {
            let cost = tokens(&mut chance);
            if ledger.check(&cost).is_err() {
                continue;
            }
            if chance.one_in(20) {
                now += chance.below(5 * SECOND);
                arrived = now;
            }
            let due = ledger.due(&cost, arrived, now);
            if due > now {
                let late = chance.pick(&[0, 15 * MILLISECOND, 3 * SECOND]);
                now = due + chance.below(late + 1);
            }
            ledger.charge(&cost, due, now);
            // Nothing is caught up beyond a second.
            left.push((due.max(now.saturating_sub(SECOND)), cost));
        }
        for (dimension, rate) in rates {
            let of = left.iter().map(|(at, cost)| (*at, cost.get(dimension))).filter(|(_, cost)| *cost > 0);
            assert_envelope(&rate, &of.collect::<Vec<_>>());
        }
    }
}

/// The gate, with timers on time: then the envelope holds on the times at which calls left, whatever it was that held
/// them back before: a window, a slot, a key, a cooldown.
#[test]
fn buckets_keep_their_envelope_on_the_clock() {
    for seed in 0..300 {
        let mut chance = Chance::new(seed);
        let rates = [Dimension::Requests, Dimension::Tokens].map(|d| (d, random_rate(&mut chance, d)));
        let per_key = PerKey { rates: vec![(Dimension::Requests, rate(5, SECOND))], concurrency: Some(2) };
        let mut config = config(&rates, 50 * MILLISECOND);
        config.concurrency = chance.one_in(2).then_some(3);
        config.per_key = chance.one_in(2).then_some(per_key);
        let mut gate: Gate<()> = support::gate(config, 0);
        let (mut now, mut ends, mut given_up) = (0, Vec::new(), Vec::new());
        let mut left = Vec::new();
        let mut settled = Vec::new();
        while left.len() < 400 {
            let key = chance.pick(&[None, Some("a"), Some("b")]);
            if gate.waiting() < 20 {
                let timeout = chance.pick(&[None, None, Some(5 * SECOND)]);
                let request = Request { cost: tokens(&mut chance), key, timeout, ..Request::default() };
                match gate.admit(now, &request, &mut settled) {
                    Admission::Granted(grant) => settled.push(((), Ok(grant))),
                    Admission::Queued(ticket) if chance.one_in(10) => given_up.push(ticket),
                    _ => {}
                }
            }
            if chance.one_in(100) {
                gate.cool_down(now, 2 * SECOND);
            }
            if chance.one_in(30) {
                for ticket in given_up.drain(..) {
                    gate.cancel(now, ticket);
                }
                gate.pump(now, &mut settled);
            }
            if chance.one_in(50) {
                let concurrency = chance.between(1, 6);
                gate.set_concurrency(Some(concurrency));
                gate.pump(now, &mut settled);
            }
            // Calls take up to 20 seconds, so that slots are what is short at times.
            let slow = chance.pick(&[10 * MILLISECOND, 20 * SECOND]);
            for ((), outcome) in settled.drain(..) {
                let Ok(grant) = outcome else { continue };
                assert_eq!(grant.charged_at, now);
                left.push((now, grant.cost));
                ends.push((now + chance.below(slow), grant));
            }
            let end = ends.iter().map(|&(at, _)| at).min();
            let soon = now + chance.below(100 * MILLISECOND);
            now = [gate.next_event(), end, Some(soon)].into_iter().flatten().min().unwrap();
            for (_, grant) in ends.extract_if(.., |&mut (at, _)| at <= now) {
                gate.release(now, &grant);
            }
            gate.pump(now, &mut settled);
        }
        for (dimension, rate) in rates {
            let of = left.iter().map(|(at, cost)| (*at, cost.get(dimension))).filter(|(_, cost)| *cost > 0);
            assert_envelope(&rate, &of.collect::<Vec<_>>());
        }
    }
}

/// A head of the queue that gives up sets those behind it free, but not what it kept them from using meanwhile.
#[test]
fn a_head_that_gives_up_leaves_no_burst_behind() {
    let requests = rate(60, MINUTE).with_burst(1).unwrap();
    let scarce = rate(60, MINUTE).with_burst(60).unwrap();
    let mut gate: Gate<()> =
        support::gate(config(&[(Dimension::Requests, requests), (Dimension::Tokens, scarce)], 0), 0);
    let mut settled = Vec::new();
    let mut admit = |cost| gate.admit(0, &Request { cost, ..Request::default() }, &mut Vec::new());
    assert!(matches!(admit(CALL.with(Dimension::Tokens, 60)), Admission::Granted(_)));
    let Admission::Queued(head) = admit(CALL.with(Dimension::Tokens, 60)) else { panic!("it has to wait") };
    for _ in 0..30 {
        assert!(matches!(admit(CALL), Admission::Queued(_)));
    }
    assert_eq!(gate.cancel(40 * SECOND, head), Some(()));
    gate.pump(40 * SECOND, &mut settled);
    assert_eq!((settled.len(), gate.next_event()), (1, Some(41 * SECOND)));
}

/// A refund comes into the window that was charged, or not at all; also where only a bucket keeps the rate.
#[test]
fn nothing_is_refunded_into_a_later_window() {
    for (at, refunded) in [(60 * SECOND - 1, true), (60 * SECOND, false)] {
        let bare = rate(60, MINUTE).with_burst(60).unwrap().with_window(false);
        let mut gate: Gate<()> = support::gate(config(&[(Dimension::Requests, bare)], 0), 0);
        let admit = |gate: &mut Gate<()>, now, requests| {
            let cost = CALL.with(Dimension::Requests, requests);
            gate.admit(now, &Request { cost, timeout: Some(0), ..Request::default() }, &mut Vec::new())
        };
        let Admission::Granted(mut first) = admit(&mut gate, 0, 60) else { panic!("there is room") };
        assert!(matches!(admit(&mut gate, 59 * SECOND, 59), Admission::Granted(_)));
        gate.settle(at, &mut first, &Cost::default());
        assert_eq!(matches!(admit(&mut gate, at, 30), Admission::Granted(_)), refunded);
    }
}

/// Rates are told apart by their periods: an update that drops one keeps what was charged to the others.
#[test]
fn an_update_keeps_what_was_charged_to_a_rate_that_stays() {
    let (second, minute) = (rate(20, SECOND), rate(60, MINUTE).with_burst(60).unwrap());
    let mut gate: Gate<()> =
        support::gate(config(&[(Dimension::Requests, second), (Dimension::Requests, minute)], 0), 0);
    let mut settled = Vec::new();
    let call = Request { cost: CALL, timeout: Some(0), ..Request::default() };
    for now in 0..3 {
        for _ in 0..20 {
            let admission = gate.admit(now * 2 * SECOND, &call, &mut settled);
            assert!(matches!(admission, Admission::Granted(_)));
        }
    }
    gate.update(6 * SECOND, Dimension::Requests, &[minute], &mut settled);
    let admission = gate.admit(6 * SECOND, &call, &mut settled);
    assert!(matches!(admission, Admission::Refused(_)), "the minute was forgotten with the second");
}

/// A call inside another's permit holds no slot, but its key is remembered for it until it is given back: or a debit
/// would go to whoever had taken the key's place.
#[test]
fn a_nested_permit_keeps_its_key() {
    fn call(gate: &mut Gate<()>, now: Nanos, key: &str, nested: bool) -> Admission {
        let request = Request { cost: CALL, key: Some(key), nested, timeout: Some(0), ..Request::default() };
        gate.admit(now, &request, &mut Vec::new())
    }
    let per_key = PerKey { rates: vec![(Dimension::Requests, rate(10, SECOND).with_window(false))], concurrency: None };
    let mut gate: Gate<()> = support::gate(Config { per_key: Some(per_key), ..Config::default() }, 0);
    let Admission::Granted(mut nested) = call(&mut gate, 0, "first", true) else { panic!("there is room") };
    // Its bucket is full again long before it ends, and many other keys come.
    let others: Vec<_> = (0..200).map(|i| format!("other {i}")).collect();
    for other in &others {
        assert!(matches!(call(&mut gate, 2 * SECOND, other, false), Admission::Granted(_)));
    }
    gate.settle(2 * SECOND, &mut nested, &CALL.with(Dimension::Requests, 100));
    gate.release(2 * SECOND, &nested);
    let refused = |key: &&String| matches!(call(&mut gate, 3 * SECOND, key, false), Admission::Refused(_));
    assert_eq!(others.iter().find(refused), None);
    assert!(matches!(call(&mut gate, 3 * SECOND, "first", false), Admission::Refused(_)));
}
