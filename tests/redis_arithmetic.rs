//! The script's arithmetic beside that of the core, over schedules that are the same in every run: admissions, settlements,
//! cooldowns, throttles, slowdowns and limits that change. The ledger is the oracle; times are the test's.

#[allow(dead_code)] // some of it is for others
mod redis_server;

use penstock::clock::{Nanos, SECOND};
use penstock::cost::{Cost, Dimension};
use penstock::ledger::{Ledger, Told};
use penstock::rate::Rate;
use penstock::store::redis::wire::{Ask, Cooldown, Decision, Learned, Limits, Places, Settle};
use redis_server::{Process, Server};

const MICROS: i64 = 1_000_000;
const BEGIN: i64 = 1_800_000_000 * MICROS;
/// Further away than anybody waits: both say no more than that.
const NEVER: Nanos = 1 << 62;
/// By when a schedule ends, however slow its rates are.
const END: Nanos = 50 * 366 * DAY;
const SLICES: Nanos = 2_048;
const THOUSAND: u64 = 1_000;

struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, range: u64) -> u64 {
        (self.bits() << 31 | self.bits()) % range.max(1)
    }
}

fn rate(amount: u64, period: Nanos, burst: u64) -> Rate {
    Rate::new(amount, period).unwrap().with_burst(burst).unwrap()
}

type Rates = Vec<(Dimension, Rate)>;

/// One limiter twice: in the server, and in the oracle.
struct Pair {
    process: Process,
    ledger: Ledger,
    rates: Rates,
    now: i64,
    random: Random,
    /// What left and is not settled yet.
    under_way: Vec<(i64, Cost)>,
    granted: usize,
    refused: usize,
}

impl Pair {
    fn new(server: &Server, name: &str, rates: &Rates, seed: u64) -> Self {
        let limits = Limits::given(rates.clone(), 0, Some(0));
        let process = Process::join(server, name, "a", limits, BEGIN);
        let ledger = Ledger::new(rates, Some(0), 0);
        let (random, rates) = (Random(seed), rates.clone());
        Self { process, ledger, rates, now: BEGIN, random, under_way: Vec::new(), granted: 0, refused: 0 }
    }

    /// The same moment by the oracle's clock.
    fn local(&self) -> Nanos {
        Self::nanos(self.now)
    }

    fn nanos(at: i64) -> Nanos {
        u64::try_from(at - BEGIN).unwrap().saturating_mul(1_000)
    }

    fn pause(&mut self) {
        // About as long as what is asked for takes to flow in, a moment, or much longer.
        let takes = |rate: &Rate| rate.service_time(rate.burst()) / 1_000;
        let mean = self.rates.iter().map(|(_, rate)| takes(rate)).max().unwrap().max(1);
        let most = match self.random.below(40) {
            0 => 20 * mean,
            1..=3 => 3 * mean,
            4..=12 => 3,
            _ => mean,
        };
        self.now += i64::try_from(self.random.below(most)).unwrap();
    }

    fn cost(&mut self) -> Cost {
        let mut cost = Cost::default();
        for dimension in Dimension::ALL {
            let rates = self.rates.iter().filter(|(of, _)| *of == dimension);
            let Some(most) = rates.clone().map(|(_, rate)| rate.amount()).min() else { continue };
            let burst = rates.map(|(_, rate)| rate.burst()).min().unwrap_or(1);
            let amount = match self.random.below(24) {
                0 => most,
                1 => most.min(burst.saturating_mul(3)),
                2..=5 => 0,
                _ => 1 + self.random.below(burst),
            };
            cost = cost.with(dimension, amount);
        }
        cost
    }

    /// Some that are alike ask, now or never: they are charged together as they would be one by one.
    fn ask(&mut self) {
        let (cost, local) = (self.cost(), self.local());
        let alike = 1 + usize::try_from(self.random.below(5)).unwrap();
        self.process.message.asks = vec![Ask { cost, slot: false, patience: Some(0) }; alike];
        for decision in self.say().unwrap() {
            let due = self.ledger.earliest_behind(&Cost::default(), &cost, local).min(NEVER);
            let theirs = match decision {
                Decision::At(at) => {
                    assert_eq!(at, self.now);
                    self.granted += 1;
                    self.under_way.push((at, cost));
                    local
                }
                Decision::NotBefore(at) => {
                    self.refused += 1;
                    Self::nanos(at).min(NEVER)
                }
                Decision::Oversize(dimension, limit) => {
                    // Where several dimensions are short each may name another.
                    let levels = self.ledger.levels(local);
                    let of = levels.iter().filter(|level| level.dimension == dimension);
                    assert_eq!(of.map(|level| level.rate.amount()).min(), Some(limit));
                    assert!(cost.get(dimension) > limit);
                    continue;
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(self.ledger.check(&cost), Ok(()));
            // Some microseconds, of which the script counts whole ones, the rounding of doubles, and where the slices of the windows begin.
            let guards = self.rates.iter().filter(|(_, rate)| rate.window());
            let slices = guards.map(|(_, rate)| 2 * (rate.period() / SLICES + 1_000)).max().unwrap_or(0);
            let slack = 20_000 + due.abs_diff(local) / 10_000_000 + slices;
            let apart = theirs.abs_diff(due);
            assert!(apart <= slack, "{cost:?} at {local}: the server says {theirs}, the core {due} ({:?})", self.rates);
            if theirs == local {
                self.ledger.charge(&cost, local, local);
            }
        }
    }

    fn settle(&mut self) {
        if self.under_way.is_empty() {
            return;
        }
        let place = usize::try_from(self.random.below(self.under_way.len() as u64)).unwrap();
        let (at, charged) = self.under_way.swap_remove(place);
        let mut actual = charged;
        for dimension in Dimension::ALL {
            let amount = charged.get(dimension);
            let other = match self.random.below(4) {
                0 => amount + self.random.below(amount + 1),
                1 => amount,
                _ => self.random.below(amount + 1),
            };
            actual = actual.with(dimension, other);
        }
        self.process.message.settles = Settle::between(at, &charged, &actual).into_iter().collect();
        self.say();
        self.ledger.settle(&charged, &actual, Self::nanos(at), self.local());
    }

    fn cool_down(&mut self) {
        let shortest = self.rates.iter().map(|(_, rate)| rate.period()).min().unwrap() / 1_000;
        let lasts = self.random.below(shortest) * 1_000;
        let (until, dimension) = (self.local() + lasts, self.rates[0].0);
        if self.random.below(4) == 0 {
            self.process.message.cooldowns = vec![Cooldown { dimension: None, period: None, lasts, requested: 0 }];
            self.say();
            return self.ledger.cool_down(until);
        }
        let place = usize::try_from(self.random.below(self.rates.len() as u64)).unwrap();
        let dimension = if self.random.below(8) == 0 { dimension } else { self.rates[place].0 };
        // Of that period, of one that is nearly so, of another, or of none that was named.
        let period = match self.random.below(4) {
            0 => None,
            1 => Some(self.rates[place].1.period() / 100 * 101),
            2 => Some(self.rates[place].1.period() * 2),
            _ => Some(self.rates[place].1.period()),
        };
        let burst = self.rates[place].1.burst();
        let requested = if self.random.below(2) == 0 { None } else { Some(1 + self.random.below(2 * burst)) };
        let told = Cooldown { dimension: Some(dimension), period, lasts, requested: requested.unwrap_or(0) };
        self.process.message.cooldowns = vec![told];
        self.say();
        self.ledger.cool_down_in(dimension, period, until, requested);
    }

    /// An answer names another limit, or says that the provider has too much to do.
    fn learn(&mut self) {
        let place = usize::try_from(self.random.below(self.rates.len() as u64)).unwrap();
        let (dimension, rate) = self.rates[place];
        let local = self.local();
        // The core counts a slower flow in whole units, of which a small amount has few.
        let whole = self.ledger.levels(local).iter().all(|level| level.rate.amount().is_multiple_of(THOUSAND));
        if whole && self.random.below(2) == 0 {
            self.ledger.overloaded(local);
        } else {
            let limit = Self::like(rate.amount(), 1 + self.random.below(rate.amount() * 3 / 2));
            let (limit, period, remaining) = (Some(limit), Some(rate.period()), None);
            self.ledger.learn(&Told { dimension, limit, remaining, period, refilled: false }, local, local);
        }
        self.tell_learned();
    }

    /// An amount of whole thousands, if the other is.
    fn like(other: u64, amount: u64) -> u64 {
        if other.is_multiple_of(THOUSAND) { amount.next_multiple_of(THOUSAND) } else { amount.max(1) }
    }

    fn tell_learned(&mut self) {
        let speed = self.ledger.speed();
        let levels = self.ledger.levels(self.local());
        let learned = levels.into_iter().map(|level| Learned {
            dimension: level.dimension,
            period: level.rate.period(),
            amount: level.rate.amount(),
            burst: level.rate.burst(),
            speed,
        });
        self.process.message.learned = learned.collect();
        self.say();
    }

    /// Other limits: of the same periods, or of others where `periods` says so.
    fn update(&mut self, periods: bool) {
        let dimension = self.rates[usize::try_from(self.random.below(self.rates.len() as u64)).unwrap()].0;
        for (_, rate) in self.rates.iter_mut().filter(|(of, _)| *of == dimension) {
            let amount = Self::like(rate.amount(), rate.amount() / 2 + self.random.below(rate.amount() + 1));
            let amount = amount.min(Rate::MAX_AMOUNT);
            let period = if periods && self.random.below(2) == 0 { rate.period() * 2 } else { rate.period() };
            let fresh = Rate::new(amount, period.min(Rate::MAX_PERIOD)).unwrap().with_window(rate.window());
            *rate = fresh.with_burst(1 + self.random.below(amount)).unwrap();
        }
        let of: Vec<_> = self.rates.iter().filter(|(of, _)| *of == dimension).map(|&(_, rate)| rate).collect();
        let owned = Places::of(dimension);
        self.process.message.limits = Limits { owned, ..Limits::given(self.rates.clone(), 0, Some(0)) };
        self.process.message.fresh_limits = true;
        self.say();
        self.process.message.fresh_limits = false;
        self.ledger.update(dimension, &of, self.local());
        self.tell_learned(); // what answers said of the other dimensions, and the speed
    }

    fn say(&mut self) -> Option<Vec<Decision>> {
        let now = self.now;
        self.process.say(now).map(|done| done.decisions)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Change {
    /// Limits stay as they are.
    Nothing,
    Amounts,
    Periods,
}

fn run(server: &Server, name: &str, rates: &Rates, steps: usize, change: Change) {
    for seed in [3, 58, 1_009] {
        let mut pair = Pair::new(server, &format!("{name}-{seed}"), rates, seed);
        let mut told_at = pair.now;
        for _ in 0..steps {
            pair.pause();
            if pair.local() > END {
                break;
            }
            // What slows it is forgotten after a minute without a word of it.
            if pair.ledger.speed() < 1_000 && pair.now - told_at > 20 * MICROS {
                pair.now = pair.now.min(told_at + 50 * MICROS);
                told_at = pair.now;
                pair.tell_learned();
            }
            match pair.random.below(100) {
                60..=89 => pair.settle(),
                90..=94 => pair.cool_down(),
                95..=97 if change != Change::Nothing => {
                    told_at = pair.now;
                    pair.learn();
                }
                98..=99 if change != Change::Nothing => pair.update(change == Change::Periods),
                _ => pair.ask(),
            }
        }
        assert!(pair.granted > 20 && pair.refused > 20, "{name}: {} {}", pair.granted, pair.refused);
    }
}

const MINUTE: Nanos = 60 * SECOND;
const DAY: Nanos = 86_400 * SECOND;

#[test]
fn buckets_are_those_of_the_core_whatever_happens() {
    let server = Server::start();
    let bucket = |dimension, rate: Rate| (dimension, rate.with_window(false));
    for (number, rates) in [
        vec![
            bucket(Dimension::Requests, rate(1_000, 16 * MINUTE, 5)),
            bucket(Dimension::Tokens, rate(90_000, MINUTE, 1_500)),
        ],
        vec![bucket(Dimension::Tokens, rate(10_000_000_000, MINUTE, 166_666_666))],
        vec![bucket(Dimension::Tokens, rate(7_000_000_000, MINUTE, 1))],
        vec![bucket(Dimension::Requests, rate(1, DAY, 1))],
        vec![bucket(Dimension::OutputTokens, rate(1_000_000_000_000_000, MINUTE, 10_000_000_000_000))],
        // Two shapes of the same period, and two periods.
        vec![
            bucket(Dimension::Requests, rate(600, MINUTE, 100)),
            bucket(Dimension::Requests, rate(1_200, MINUTE, 2)),
            bucket(Dimension::Requests, rate(20_000, 60 * MINUTE + 333, 300)),
        ],
    ]
    .iter()
    .enumerate()
    {
        let alone = rates.iter().all(|(of, _)| rates.iter().filter(|(other, _)| other == of).count() == 1);
        let change = if alone { Change::Periods } else { Change::Nothing };
        run(&server, &format!("bucket-{number}"), rates, 500, change);
    }
}

#[test]
fn windows_are_those_of_the_core_but_for_where_a_slice_begins() {
    let server = Server::start();
    for (number, rates) in [
        vec![(Dimension::Requests, rate(60, MINUTE, 30)), (Dimension::Tokens, rate(9_000, MINUTE, 4_000))],
        vec![(Dimension::Requests, rate(1_000, DAY, 1_000)), (Dimension::Requests, rate(60, MINUTE, 60))],
        vec![(Dimension::InputTokens, rate(10_000_000_000, MINUTE, 10_000_000_000))],
        vec![(Dimension::Tokens, rate(3, SECOND, 3))],
        vec![(Dimension::Tokens, rate(500, 366 * DAY, 400))],
        // Two of the same period are two windows.
        vec![(Dimension::Tokens, rate(400, MINUTE, 400)), (Dimension::Tokens, rate(300, MINUTE, 20))],
    ]
    .iter()
    .enumerate()
    {
        run(&server, &format!("window-{number}"), rates, 500, Change::Nothing);
    }
    let rates = vec![(Dimension::Requests, rate(60, MINUTE, 30)), (Dimension::Tokens, rate(9_000, MINUTE, 4_000))];
    run(&server, "window-amounts", &rates, 500, Change::Amounts);
}
