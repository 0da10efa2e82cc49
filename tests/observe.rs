//! What a limiter makes of what the provider says, in virtual time: processes that share a key without knowing of each
//! other, and a refusal that stops all who wait. Answers are real ones: headers and bodies as `OpenAI` sends them.

mod support;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use penstock::clock::{Nanos, SECOND};
use penstock::cost::{Cost, Dimension};
use penstock::gate::{Admission, Config, Gate, Grant, Request};
use penstock::provider::{Headers, Provider, Reading, read};
use penstock::rate::Rate;
use penstock::retry::Random;

const MILLI: Nanos = SECOND / 1_000;
const LIMIT: u64 = 600;
const MINUTE: Nanos = 60 * SECOND;

fn one() -> Cost {
    Cost { requests: 1, ..Cost::default() }
}

fn gate() -> Gate<()> {
    let rates = vec![(Dimension::Requests, Rate::new(LIMIT, MINUTE).unwrap())];
    support::gate(Config { rates, ..Config::default() }, SECOND)
}

/// A bucket as `OpenAI`'s own messages describe it: it holds the whole limit and is refilled without a pause. In
/// nano-requests, so that a minute of 600 is exact.
struct Server {
    level: u64,
    last: Nanos,
}

impl Server {
    const UNIT: u64 = 1_000_000_000;

    fn new() -> Self {
        Self { level: LIMIT * Self::UNIT, last: SECOND }
    }

    /// Whether the request is served, and what is left.
    fn count(&mut self, now: Nanos) -> (bool, u64) {
        let refilled = (now - self.last) * LIMIT / 60; // nanoseconds times requests a second is nano-requests
        self.level = (self.level + refilled).min(LIMIT * Self::UNIT);
        self.last = now;
        let served = self.level >= Self::UNIT;
        if served {
            self.level -= Self::UNIT;
        }
        (served, self.level / Self::UNIT)
    }
}

fn answer(served: bool, left: u64) -> Reading {
    let (limit, remaining) = (LIMIT.to_string(), left.to_string());
    let reset = format!("{}ms", (LIMIT - left) * 60_000 / LIMIT);
    let headers: Vec<(&[u8], &[u8])> = vec![
        (b"x-ratelimit-limit-requests", limit.as_bytes()),
        (b"x-ratelimit-remaining-requests", remaining.as_bytes()),
        (b"x-ratelimit-reset-requests", reset.as_bytes()),
    ];
    let body = br#"{"error":{"message":"Rate limit reached for m in organization org-x on requests per min (RPM): Limit 600, Used 600, Requested 1. Please try again in 100ms.","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#;
    let (status, body): (u16, &[u8]) = if served { (200, b"{}") } else { (429, body) };
    read(Provider::OpenAi, status, Headers::new(&headers), body, 1.7e9)
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Arrives { process: usize, left_at: Nanos },
    Answered { process: usize, left_at: Nanos, served: bool, left: u64 },
}

struct Tally {
    sent: u64,
    refused: u64,
    by_process: Vec<u64>,
}

/// Processes that each believe the quota to be theirs alone, and always have calls waiting; counted from the second
/// minute on.
fn share_a_key(processes: usize, minutes: u64, listens: bool) -> Tally {
    let mut random = Random::new(7);
    let mut gates: Vec<Gate<()>> = (0..processes).map(|_| gate()).collect();
    let mut quota = Server::new();
    let mut steps: BinaryHeap<Reverse<(Nanos, u64, Step)>> = BinaryHeap::new();
    let mut grants: Vec<Vec<(Nanos, Grant)>> = (0..processes).map(|_| Vec::new()).collect();
    let mut tally = Tally { sent: 0, refused: 0, by_process: vec![0; processes] };
    let (start, end) = (SECOND + MINUTE, SECOND + minutes * MINUTE);
    let (mut now, mut order) = (SECOND, 0);
    while now < end {
        for (process, gate) in gates.iter_mut().enumerate() {
            let mut settled = Vec::new();
            while gate.waiting() < 20 {
                if let Admission::Granted(grant) =
                    gate.admit(now, &Request { cost: one(), ..Request::default() }, &mut settled)
                {
                    settled.push(((), Ok(grant)));
                }
            }
            gate.pump(now, &mut settled);
            for ((), outcome) in settled {
                grants[process].push((now, outcome.unwrap()));
                order += 1;
                let at = now + random.between(20 * MILLI, 60 * MILLI);
                steps.push(Reverse((at, order, Step::Arrives { process, left_at: now })));
            }
        }
        now += 5 * MILLI;
        while let Some(Reverse((at, ..))) = steps.peek()
            && *at <= now
        {
            let Some(Reverse((at, _, step))) = steps.pop() else { break };
            order += 1;
            match step {
                Step::Arrives { process, left_at } => {
                    let (served, remaining) = quota.count(at);
                    if at >= start {
                        tally.sent += 1;
                        tally.refused += u64::from(!served);
                        tally.by_process[process] += u64::from(served);
                    }
                    let took = if served { random.between(200 * MILLI, 800 * MILLI) } else { 30 * MILLI };
                    steps.push(Reverse((
                        at + took,
                        order,
                        Step::Answered { process, left_at, served, left: remaining },
                    )));
                }
                Step::Answered { process, left_at, served, left } => {
                    let gate = &mut gates[process];
                    let mut settled = Vec::new();
                    let reading = answer(served, left);
                    if listens || !served {
                        gate.observe(at, &reading, Some(left_at), &mut settled);
                    }
                    let place = grants[process].iter().position(|(when, _)| *when == left_at).unwrap();
                    let (_, grant) = grants[process].swap_remove(place);
                    gate.release(at, &grant);
                    assert!(settled.is_empty());
                }
            }
        }
    }
    tally
}

#[test]
fn processes_that_share_a_key_find_their_shares_by_listening() {
    for processes in [1, 2, 3, 5] {
        let listening = share_a_key(processes, 10, true);
        let served: u64 = listening.by_process.iter().sum();
        let used = served * 1_000 / (LIMIT * 9);
        println!(
            "{processes} processes: {} of {} refused, {}.{} % used, shares {:?}",
            listening.refused,
            listening.sent,
            used / 10,
            used % 10,
            listening.by_process
        );
        assert!(listening.refused * 100 < listening.sent, "{} of {}", listening.refused, listening.sent);
        assert!(used >= 950, "{used}");
        let least = listening.by_process.iter().min().unwrap() * u64::try_from(processes).unwrap();
        assert!(least * 100 >= served * 60, "{:?}", listening.by_process);
    }
    // What it was without: the refusals' own waits are obeyed, but nobody hears what is left.
    let deaf = share_a_key(2, 10, false);
    println!("2 processes, deaf to what is left: {} of {} refused", deaf.refused, deaf.sent);
    assert!(deaf.refused * 10 > deaf.sent, "{} of {}", deaf.refused, deaf.sent);
}

#[test]
fn a_stated_wait_stops_all_who_wait_and_no_herd_leaves_after_it() {
    let rates = vec![(Dimension::Requests, Rate::new(6_000, MINUTE).unwrap())]; // 100 a second
    let mut gate: Gate<()> = support::gate(Config { rates, ..Config::default() }, SECOND);
    let mut settled = Vec::new();
    let request = Request { cost: one(), ..Request::default() };
    let mut now = SECOND;
    let mut out = Vec::new();
    while let Admission::Granted(grant) = gate.admit(now, &request, &mut settled) {
        out.push(grant);
    }
    assert_eq!(out.len(), 100);
    for _ in 0..499 {
        assert!(matches!(gate.admit(now, &request, &mut settled), Admission::Queued(_)));
    }
    let headers: Vec<(&[u8], &[u8])> = vec![(b"retry-after", b"20")];
    let body = br#"{"error":{"message":"Rate limit reached on requests per min (RPM): Limit 6000, Used 6000, Requested 1. Please try again in 20s.","type":"requests","code":"rate_limit_exceeded"}}"#;
    let reading = read(Provider::OpenAi, 429, Headers::new(&headers), body, 1.7e9);
    now += 100 * MILLI;
    gate.observe(now, &reading, Some(SECOND), &mut settled);
    let told = now + 20 * SECOND;
    let mut left = Vec::new();
    while gate.waiting() > 0 {
        gate.pump(now, &mut settled);
        left.extend(std::mem::take(&mut settled).into_iter().map(|_| now));
        now = gate.next_event().unwrap_or(now).max(now + 1);
    }
    assert_eq!(left.len(), 500);
    assert!(left.iter().all(|&at| at >= told), "someone left before the stated wait was over");
    // The provider has just the one call then that was refused; the others leave as the rate allows.
    let at_once = left.iter().filter(|&&at| at < told + 10 * MILLI).count();
    assert!((1..=2).contains(&at_once), "{at_once} left at once");
    let last = left.iter().max().copied().unwrap_or_default();
    assert!((told + 4_900 * MILLI..told + 5_100 * MILLI).contains(&last), "the last left {} ns after", last - told);
}

/// When a call arrives, or its answer: that time, an order, when it left, and what the answer says is left.
type Told = (Nanos, u64, Nanos, Option<u64>);

/// One process alone, whose calls leave in a burst and answer out of order: how long it takes for 40 of them, with 300 a
/// minute and a server that holds ten.
fn alone(window: bool, seed: u64) -> (Nanos, u64) {
    let rate = Rate::new(300, MINUTE).unwrap().with_burst(9).unwrap().with_window(window);
    let rates = vec![(Dimension::Requests, rate)];
    let mut gate: Gate<()> = support::gate(Config { rates, ..Config::default() }, SECOND);
    let mut random = Random::new(seed);
    let (mut level, mut last): (u64, Nanos) = (10 * SECOND, SECOND); // in nano-requests
    let mut steps: BinaryHeap<Reverse<Told>> = BinaryHeap::new();
    let (mut now, mut order, mut sent, mut refused, mut settled) = (SECOND, 0, 0, 0, Vec::new());
    let request = Request { cost: one(), ..Request::default() };
    for _ in 0..40 {
        if let Admission::Granted(grant) = gate.admit(now, &request, &mut settled) {
            settled.push(((), Ok(grant)));
        }
    }
    let mut end = now;
    while sent < 40 {
        gate.pump(now, &mut settled);
        for ((), outcome) in settled.drain(..) {
            gate.release(now, &outcome.unwrap());
            (sent, order, end) = (sent + 1, order + 1, now);
            steps.push(Reverse((now + random.between(MILLI, 3 * MILLI), order, now, None)));
        }
        let event = gate.next_event().unwrap_or(Nanos::MAX);
        let step = steps.peek().map_or(Nanos::MAX, |Reverse((at, ..))| *at);
        if event.min(step) == Nanos::MAX {
            break;
        }
        now = now.max(event.min(step));
        if step > event {
            continue;
        }
        let Some(Reverse((at, _, left_at, told))) = steps.pop() else { break };
        match told {
            None => {
                level = (level + (at - last) * 5).min(10 * SECOND);
                last = at;
                refused += u64::from(level < SECOND);
                level = level.saturating_sub(SECOND);
                order += 1;
                steps.push(Reverse((
                    at + random.between(20 * MILLI, 80 * MILLI),
                    order,
                    left_at,
                    Some(level / SECOND),
                )));
            }
            Some(left) => {
                let (limit, left) = ("300", left.to_string());
                let headers: Vec<(&[u8], &[u8])> = vec![
                    (b"x-ratelimit-limit-requests", limit.as_bytes()),
                    (b"x-ratelimit-remaining-requests", left.as_bytes()),
                ];
                let reading = read(Provider::OpenAi, 200, Headers::new(&headers), b"{}", 1.7e9);
                gate.observe(at, &reading, Some(left_at), &mut settled);
            }
        }
    }
    (end - SECOND, refused)
}

#[test]
fn who_is_alone_takes_its_own_burst_for_nobody_elses() {
    for window in [true, false] {
        for seed in 0..50 {
            let (took, refused) = alone(window, seed);
            assert_eq!(refused, 0, "window={window}, seed {seed}");
            // 31 of the 40 wait 0.2 s each.
            assert!(took <= 6_250 * MILLI, "window={window}, seed {seed}: {} ms", took / MILLI);
        }
    }
}
