//! A provider that is down for five minutes under 200 callers, in virtual time.
//!
//! The model. Each of 200 callers makes one call after the other. While the provider is up a call takes 1.5 to 2.5 s.
//! While it is down an attempt fails after a time that depends on the model, as do the attempts that were under way
//! when it went down. A failed attempt is decided on by [`Policy::decide`] with the default policy (5 attempts, 1 s
//! doubling to 60 s, full jitter, no stated wait). A caller whose call was given up pauses, as the model says, and goes
//! on with its next call. There is no limiter, which would only lower the load further. After 60 s the provider goes
//! down, at 360 s it is back, at 400 s the simulation ends.
//!
//! Counted are the attempts made during the outage: first attempts, including those under way when it began, and
//! retries. The same outage is run with other budgets for comparison; `cargo test --test outage -- --nocapture` prints
//! the table.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use penstock::retry::{
    Backoff, CallSlot, Decision, Failure, FailureKind, Jitter, Nanos, Policy, Progress, Random, RetryBudget, RetrySlot,
    StopReason,
};

const SECOND: Nanos = 1_000_000_000;
const MILLISECOND: Nanos = 1_000_000;
const CALLERS: usize = 200;
const DOWN: Nanos = 60 * SECOND;
const RATIO: f64 = 0.2;
const MINIMUM: u32 = 3;

/// How callers behave during the outage.
struct Model {
    name: &'static str,
    /// The first step of the backoff, in seconds.
    initial: f64,
    /// How long an attempt takes to fail, shortest and longest, in milliseconds.
    failing: (Nanos, Nanos),
    /// How long a caller pauses after a call was given up, in milliseconds.
    pause: (Nanos, Nanos),
}

const EAGER: Model =
    Model { name: "eager: fails in 0.1-0.3 s, no pause", initial: 1.0, failing: (100, 300), pause: (0, 0) };
const WORKER: Model =
    Model { name: "worker: fails in 20-80 ms, pause 0.5-1.5 s", initial: 1.0, failing: (20, 80), pause: (500, 1_500) };
const TIMEOUT: Model =
    Model { name: "timeout: fails in 4-6 s, no pause", initial: 1.0, failing: (4_000, 6_000), pause: (0, 0) };
const POLLER: Model =
    Model { name: "poller: fails in 20-80 ms, pause 5-15 s", initial: 1.0, failing: (20, 80), pause: (5_000, 15_000) };
const CRON: Model =
    Model { name: "cron: fails in 20-80 ms, pause 30-90 s", initial: 1.0, failing: (20, 80), pause: (30_000, 90_000) };
const BRISK: Model = Model { name: "brisk: as poller, but the backoff starts at 0.1 s", initial: 0.1, ..POLLER };

/// A budget under test.
trait Budget {
    fn enter(&mut self, now: Nanos) -> Option<CallSlot>;
    fn leave(&mut self) {}
    fn try_retry(&mut self, _now: Nanos) -> bool {
        true
    }
    fn end_retry(&mut self) {}
    fn outcome(&mut self, _ok: bool) {}
}

struct Unlimited;

impl Budget for Unlimited {
    fn enter(&mut self, _now: Nanos) -> Option<CallSlot> {
        None
    }
}

/// What the project ships: [`Policy::decide`] asks it itself.
struct Penstock(RetryBudget);

impl Budget for Penstock {
    fn enter(&mut self, now: Nanos) -> Option<CallSlot> {
        Some(self.0.enter(now))
    }
}

/// Envoy: retries in flight are a share of calls in flight.
#[derive(Default)]
struct Share {
    calls: u32,
    retries: u32,
}

impl Budget for Share {
    fn enter(&mut self, _now: Nanos) -> Option<CallSlot> {
        self.calls += 1;
        None
    }
    fn leave(&mut self) {
        self.calls -= 1;
    }
    fn try_retry(&mut self, _now: Nanos) -> bool {
        let allowed = f64::from(self.retries + 1) <= f64::max(f64::from(MINIMUM), RATIO * f64::from(self.calls));
        self.retries += u32::from(allowed);
        allowed
    }
    fn end_retry(&mut self) {
        self.retries -= 1;
    }
}

/// Finagle: deposits of first attempts and a reserve, both of the last `ttl`, pay for retries.
struct Deposits {
    ttl: Nanos,
    reserve: f64,
    firsts: VecDeque<Nanos>,
    retries: VecDeque<Nanos>,
}

impl Deposits {
    fn new(ttl: Nanos, reserve: f64) -> Self {
        Self { ttl, reserve, firsts: VecDeque::new(), retries: VecDeque::new() }
    }
}

impl Budget for Deposits {
    fn enter(&mut self, now: Nanos) -> Option<CallSlot> {
        self.firsts.push_back(now);
        None
    }
    fn try_retry(&mut self, now: Nanos) -> bool {
        for times in [&mut self.firsts, &mut self.retries] {
            while times.front().is_some_and(|&at| at + self.ttl <= now) {
                times.pop_front();
            }
        }
        let allowed = count(self.retries.len()) + 1.0 <= self.reserve + RATIO * count(self.firsts.len());
        if allowed {
            self.retries.push_back(now);
        }
        allowed
    }
}

/// gRPC (A6): a failure takes a token, a success adds a tenth; no retries at half of ten tokens or fewer.
struct Tokens(f64);

impl Budget for Tokens {
    fn enter(&mut self, _now: Nanos) -> Option<CallSlot> {
        None
    }
    fn try_retry(&mut self, _now: Nanos) -> bool {
        self.0 > 5.0
    }
    fn outcome(&mut self, ok: bool) {
        self.0 = (self.0 + if ok { 0.1 } else { -1.0 }).clamp(0.0, 10.0);
    }
}

fn count(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap())
}

/// What is due: a caller begins a call, makes the retry it waited for, or learns how its attempt ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Begin,
    Retry,
    Ended { ok: bool },
}

/// A call in progress.
struct Call {
    progress: Progress,
    slot: Option<CallSlot>,
    retry: Option<RetrySlot>,
}

#[derive(Debug, Default)]
struct Report {
    first_attempts: usize,
    retries: usize,
    /// The most attempts in one second of the outage, as a multiple of the calls of the healthy provider.
    peak: f64,
    /// Calls that ended with a failure.
    given_up: usize,
    /// Calls finished per second from 10 to 20 s after healing, as a share of those before the outage.
    recovered: f64,
}

struct Simulation<'a> {
    model: &'a Model,
    back: Nanos,
    random: Random,
    events: BinaryHeap<Reverse<(Nanos, usize, Due)>>,
    /// When first attempts were sent and ended, retries were sent, and calls finished.
    firsts: Vec<(Nanos, Nanos)>,
    retries: Vec<Nanos>,
    finished: Vec<Nanos>,
}

impl Simulation<'_> {
    fn draw(&mut self, (low, high): (Nanos, Nanos)) -> Nanos {
        self.random.between(low * MILLISECOND, high * MILLISECOND)
    }

    /// Sends an attempt; gives the time at which it ends.
    fn send(&mut self, now: Nanos, caller: usize) -> Nanos {
        let done = now + self.draw((1_500, 2_500));
        let failing = self.draw(self.model.failing);
        let is_down = (DOWN..self.back).contains(&now);
        let (end, ok) = match () {
            () if is_down => (now + failing, false),
            () if now < DOWN && done > DOWN => (DOWN + failing, false),
            () => (done, true),
        };
        self.events.push(Reverse((end, caller, Due::Ended { ok })));
        end
    }
}

fn run(model: &Model, outage: Nanos, budget: &mut dyn Budget, seed: u64) -> Report {
    let policy = Policy::new(5, Backoff::new(model.initial, 2.0, 60.0, Jitter::Full).unwrap(), None).unwrap();
    let failure = Failure::new(FailureKind::Overloaded);
    let back = DOWN + outage;
    let mut simulation = Simulation {
        model,
        back,
        random: Random::new(seed),
        events: BinaryHeap::new(),
        firsts: Vec::new(),
        retries: Vec::new(),
        finished: Vec::new(),
    };
    let mut calls: Vec<Option<Call>> = (0..CALLERS).map(|_| None).collect();
    for caller in 0..CALLERS {
        let start = simulation.draw((0, 2_000));
        simulation.events.push(Reverse((start, caller, Due::Begin)));
    }
    let mut report = Report::default();
    while let Some(Reverse((now, caller, due))) = simulation.events.pop() {
        if now > back + 40 * SECOND {
            break;
        }
        match due {
            Due::Begin => {
                calls[caller] = Some(Call { progress: Progress::start(now), slot: budget.enter(now), retry: None });
                let end = simulation.send(now, caller);
                simulation.firsts.push((now, end));
            }
            Due::Retry => {
                simulation.send(now, caller);
                simulation.retries.push(now);
            }
            Due::Ended { ok } => {
                let call = calls[caller].as_mut().unwrap();
                budget.outcome(ok);
                if call.progress.attempts() > 1 {
                    call.retry = None;
                    budget.end_retry();
                }
                let mut decision = if ok {
                    Decision::Stop(StopReason::NotRetryable(FailureKind::Fatal))
                } else {
                    policy.decide(&call.progress, &failure, now, &mut simulation.random, call.slot.as_ref())
                };
                if matches!(decision, Decision::Retry { .. }) && !budget.try_retry(now) {
                    decision = Decision::Stop(StopReason::Budget);
                }
                match decision {
                    Decision::Retry { delay, slot, .. } => {
                        call.retry = slot;
                        call.progress.retried(delay);
                        simulation.events.push(Reverse((now + delay, caller, Due::Retry)));
                    }
                    Decision::Stop(_) => {
                        calls[caller] = None;
                        budget.leave();
                        let mut next = now;
                        if ok {
                            simulation.finished.push(now);
                        } else {
                            report.given_up += 1;
                            next += simulation.draw(model.pause);
                        }
                        simulation.events.push(Reverse((next, caller, Due::Begin)));
                    }
                }
            }
        }
    }
    let within = |times: &[Nanos], from, to| times.iter().filter(|&&at| (from..to).contains(&at)).count();
    let sent = simulation.firsts.iter().map(|&(at, _)| at).chain(simulation.retries.iter().copied());
    report.first_attempts = simulation.firsts.iter().filter(|&&(at, end)| at < back && end >= DOWN).count();
    report.retries = within(&simulation.retries, DOWN, back);
    let healthy = count(within(&simulation.finished, DOWN - 30 * SECOND, DOWN)) / 30.0;
    let mut seconds = vec![0_usize; usize::try_from((back + 41 * SECOND) / SECOND).unwrap()];
    for at in sent.filter(|at| (DOWN..back).contains(at)) {
        seconds[usize::try_from(at / SECOND).unwrap()] += 1;
    }
    report.peak = count(seconds.into_iter().max().unwrap()) / healthy;
    report.recovered = count(within(&simulation.finished, back + 10 * SECOND, back + 20 * SECOND)) / 10.0 / healthy;
    report
}

type Make = fn() -> Box<dyn Budget>;

fn shipped() -> Box<dyn Budget> {
    Box::new(Penstock(RetryBudget::new(RATIO, MINIMUM, None).unwrap()))
}

const FIVE_MINUTES: Nanos = 300 * SECOND;
const BLIP: Nanos = 2 * SECOND;

#[test]
fn an_outage_costs_at_most_a_fifth_more_requests() {
    for model in [EAGER, WORKER, TIMEOUT, POLLER, CRON, BRISK] {
        for seed in 1..=3 {
            let report = run(&model, FIVE_MINUTES, &mut *shipped(), seed);
            let allowed = RATIO * count(report.first_attempts) + f64::from(MINIMUM);
            assert!(count(report.retries) <= allowed, "{}, seed {seed}: {report:?}", model.name);
            assert!(report.retries > 0, "{}: no retry at all", model.name);
        }
    }
}

/// Of callers that pause for less than that, or throughput says more about them than about the budget.
#[test]
fn throughput_is_back_ten_seconds_after_healing() {
    for model in [EAGER, WORKER, TIMEOUT] {
        for seed in 1..=3 {
            let report = run(&model, FIVE_MINUTES, &mut *shipped(), seed);
            assert!(report.recovered >= 0.95, "{}, seed {seed}: {report:?}", model.name);
        }
    }
}

#[test]
fn simpler_budgets_do_not_keep_the_limit() {
    let mut broken = Vec::new();
    for model in [EAGER, WORKER, TIMEOUT, POLLER, CRON, BRISK] {
        println!("\n{}", model.name);
        println!(
            "                                  first attempts  retries  ratio   peak  back | a blip: given up  back"
        );
        let budgets: [(&str, Make); 6] = [
            ("none", || Box::new(Unlimited)),
            ("share (Envoy)", || Box::<Share>::default()),
            ("deposits, 10 s, 10/s (Finagle)", || Box::new(Deposits::new(10 * SECOND, 100.0))),
            ("deposits, 60 s, 3/min", || Box::new(Deposits::new(60 * SECOND, 3.0))),
            ("tokens (gRPC)", || Box::new(Tokens(10.0))),
            ("share and credit (Penstock)", shipped),
        ];
        for (name, budget) in budgets {
            let report = run(&model, FIVE_MINUTES, &mut *budget(), 1);
            let blip = run(&model, BLIP, &mut *budget(), 1);
            println!(
                "  {name:30}  {:14}  {:7}  {:5.3}  {:5.2}  {:3.0}% | {:16}  {:3.0}%",
                report.first_attempts,
                report.retries,
                1.0 + count(report.retries) / count(report.first_attempts),
                report.peak,
                100.0 * report.recovered,
                blip.given_up,
                100.0 * blip.recovered,
            );
            if count(report.retries) > RATIO * count(report.first_attempts) + f64::from(MINIMUM) {
                broken.push((name, model.name));
            }
        }
    }
    let times = |name| broken.iter().filter(|&&(broken, _)| broken == name).count();
    assert_eq!(times("none"), 6);
    assert_eq!(times("share (Envoy)"), 2);
    assert_eq!(times("deposits, 10 s, 10/s (Finagle)"), 6);
    assert_eq!(times("deposits, 60 s, 3/min"), 4);
    assert_eq!(times("tokens (gRPC)"), 0); // for it allows next to none
    assert_eq!(times("share and credit (Penstock)"), 0);
}
