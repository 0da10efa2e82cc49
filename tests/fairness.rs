//! Fair: first come, first served within a key and priority; keys share; no one starves, a large call included; and no
//! number of keys makes a decision slow.

#[path = "support/processor.rs"]
mod processor;
mod support;

use std::collections::HashMap;
use std::time::Duration;

use penstock::clock::{Nanos, SECOND};
use penstock::cost::{Cost, Dimension};
use penstock::gate::{Admission, Config, Gate, Outcome, Refusal, Request};
use penstock::keys::PerKey;
use penstock::queue::Ticket;
use processor::processor_time;
use support::{CALL, Chance, MINUTE, config, rate, tokens};

/// A gate whose callers are told apart by a number, in virtual time.
struct Line {
    gate: Gate<usize>,
    now: Nanos,
    /// Who left, when, with what.
    left: Vec<(usize, Nanos, Cost)>,
}

impl Line {
    fn new(config: Config) -> Self {
        Self { gate: support::gate(config, 0), now: 0, left: Vec::new() }
    }

    fn of_tokens(amount: u64) -> Self {
        Self::new(config(&[(Dimension::Tokens, rate(amount, MINUTE).with_window(false))], 0))
    }

    fn ask(&mut self, who: usize, request: &Request<'_>) -> Option<Ticket> {
        let mut settled = Vec::new();
        let admission = self.gate.admit(self.now, request, &mut settled);
        self.take(settled);
        match admission {
            Admission::Granted(grant) => {
                self.take(vec![(who, Ok(grant))]);
                None
            }
            Admission::Queued(ticket) => {
                *self.gate.payload(ticket).unwrap() = who;
                Some(ticket)
            }
            Admission::Refused(why) => panic!("{why}"),
        }
    }

    fn call(&mut self, who: usize, key: &str, amount: u64) {
        self.ask(who, &Request { cost: tokens(amount), key: Some(key), ..Request::default() });
    }

    /// Gives back at once whatever was granted, and what that sets free, and so on.
    fn take(&mut self, mut settled: Vec<(usize, Outcome)>) {
        while !settled.is_empty() {
            for (who, outcome) in settled.drain(..) {
                let grant = outcome.unwrap();
                self.left.push((who, self.now, grant.cost));
                self.gate.release(self.now, &grant);
            }
            self.gate.pump(self.now, &mut settled);
        }
    }

    /// To the next event; false if there is none.
    fn step(&mut self) -> bool {
        let Some(event) = self.gate.next_event() else { return false };
        self.now = event;
        let mut settled = Vec::new();
        self.gate.pump(self.now, &mut settled);
        self.take(settled);
        true
    }

    fn tokens_of(&self, who: usize) -> u64 {
        self.left.iter().filter(|left| left.0 == who).map(|left| left.2.tokens).sum()
    }
}

#[test]
fn keys_share_by_tokens_whatever_their_calls_are_like() {
    let mut chance = Chance::new(1);
    let mut line = Line::of_tokens(400_000);
    let mut size = |who| match who {
        0 => 50,
        1 => 12_000,
        2 => chance.between(1, 6_000),
        _ => chance.tokens(),
    };
    let mut waiting = [0_u32; 5];
    let mut seen = 0;
    while line.now < 60 * MINUTE {
        for (who, waiting) in waiting.iter_mut().enumerate() {
            while *waiting < 3 {
                line.call(who, &format!("key {who}"), size(who));
                *waiting += 1;
            }
        }
        line.step();
        for &(who, ..) in &line.left[seen..] {
            waiting[who] -= 1;
        }
        seen = line.left.len();
    }
    let used: Vec<_> = (0..5).map(|who| line.tokens_of(who)).collect();
    let fair = used.iter().sum::<u64>() / 5;
    for used in &used {
        assert!(used.abs_diff(fair) * 100 <= fair * 3, "{used} where {fair} is fair");
    }
}

/// Ten tenants of one quota; nine ask for what is theirs, one for all there is and more.
#[test]
fn nine_tenants_keep_their_share_when_one_floods() {
    let mut chance = Chance::new(2);
    let mut line = Line::of_tokens(600_000);
    for _ in 0..20_000 {
        line.call(9, "flood", chance.tokens());
    }
    // A tenth of 10,000 tokens a second each, at even times, with sizes as they come.
    let mut next = [0; 9];
    let mut asked = [0; 9];
    let end = 30 * MINUTE;
    while line.now < end {
        let (who, at) = next.iter().copied().enumerate().min_by_key(|&(_, at)| at).unwrap();
        if line.gate.next_event().is_none_or(|event| event > at) {
            line.now = line.now.max(at);
            let size = chance.tokens();
            line.call(who, &format!("tenant {who}"), size);
            asked[who] += size;
            next[who] += size * SECOND / 1_000;
        } else {
            line.step();
        }
    }
    for (who, asked) in asked.into_iter().enumerate() {
        let got = line.tokens_of(who);
        assert!(got * 10 >= asked * 9, "tenant {who} got {got} of {asked}");
    }
    assert!(line.tokens_of(9) > 0);
}

/// A call as large as the quota, among small ones that never end: it leaves when the line before it has, no later.
#[test]
fn a_large_call_is_not_starved() {
    let mut line = Line::new(config(&[(Dimension::Tokens, rate(60_000, MINUTE))], 0));
    for who in 0..100 {
        line.ask(who, &Request { cost: tokens(1_000), ..Request::default() });
    }
    line.ask(1_000, &Request { cost: tokens(60_000), ..Request::default() });
    let mut next = 100;
    while !line.left.iter().any(|left| left.0 == 1_000) {
        line.ask(next, &Request { cost: tokens(1_000), ..Request::default() });
        next += 1;
        assert!(line.step());
    }
    let order: Vec<_> = line.left.iter().map(|left| left.0).collect();
    assert_eq!(order, (0..100).chain([1_000]).collect::<Vec<_>>());
    assert!(line.now <= 3 * MINUTE, "{}", line.now); // 100,000 tokens ahead, and a window for itself alone
}

/// The same between keys: the large call's key saves its turns up.
#[test]
fn a_large_call_of_one_key_is_not_starved_by_the_small_ones_of_others() {
    let mut line = Line::of_tokens(60_000);
    for who in 0..10 {
        line.call(who, &format!("small {who}"), 100);
    }
    line.call(1_000, "large", 50_000);
    let mut seen = 0;
    while !line.left.iter().any(|left| left.0 == 1_000) {
        while seen < line.left.len() {
            let who = line.left[seen].0;
            line.call(who, &format!("small {who}"), 100);
            line.call(who, &format!("small {who}"), 100);
            seen += 1;
        }
        assert!(line.step());
    }
    // Ten others have each had as much as it needed, and no more: 50,000 each.
    assert!(line.now <= 10 * MINUTE, "{}", line.now);
}

#[test]
fn a_higher_priority_goes_first_and_the_rest_in_the_order_they_came() {
    let mut line = Line::new(config(&[(Dimension::Requests, rate(60, MINUTE).with_burst(1).unwrap())], 0));
    let priorities = [0, 0, -1, 5, 0, 5, -1, i32::MAX, i32::MIN, 0];
    for (who, priority) in priorities.into_iter().enumerate() {
        line.ask(who, &Request { cost: CALL, priority, ..Request::default() });
    }
    while line.step() {}
    let order: Vec<_> = line.left.iter().map(|left| left.0).collect();
    assert_eq!(order, [0, 7, 3, 5, 1, 4, 9, 2, 6, 8]);
}

fn with_per_key(requests: u64, concurrency: Option<u64>) -> Config {
    let per_key = PerKey { rates: vec![(Dimension::Requests, rate(requests, MINUTE))], concurrency };
    let shared = (Dimension::Requests, rate(6_000, MINUTE));
    Config { rates: vec![shared], per_key: Some(per_key), ..Config::default() }
}

#[test]
fn a_key_at_its_own_limit_blocks_nobody_else() {
    let mut line = Line::new(with_per_key(6, None));
    for who in 0..200 {
        line.ask(who, &Request { cost: CALL, key: Some("spent"), priority: 1, ..Request::default() });
    }
    for who in 1_000..1_005 {
        line.ask(who, &Request { cost: CALL, key: Some(&format!("key {who}")), ..Request::default() });
    }
    assert_eq!(line.left.iter().filter(|left| left.0 >= 1_000 && left.1 == 0).count(), 5);
    // Nor is anyone told to wait for those who are set aside.
    let request = Request { cost: CALL, key: Some("another"), timeout: Some(SECOND), ..Request::default() };
    assert_eq!(line.ask(2_000, &request), None);
    while line.step() {}
    let spent: Vec<_> = line.left.iter().map(|left| left.0).filter(|who| *who < 200).collect();
    assert_eq!(spent, (0..200).collect::<Vec<_>>());
    assert!(line.now >= 33 * MINUTE);
}

/// One key's waiters fill the queue: who has room of its own still leaves at once, and only who would wait is refused.
#[test]
fn a_queue_full_of_one_keys_waiters_refuses_no_one_who_need_not_wait() {
    let mut gate: Gate<()> = support::gate(Config { max_waiting: Some(3), ..with_per_key(600, Some(1)) }, 0);
    let mut admit = |key| {
        let request = Request { cost: CALL, key: Some(key), ..Request::default() };
        gate.admit(0, &request, &mut Vec::new())
    };
    assert!(matches!(admit("busy"), Admission::Granted(_)));
    for _ in 0..3 {
        assert!(matches!(admit("busy"), Admission::Queued(_)));
    }
    assert!(matches!(admit("other"), Admission::Granted(_)));
    assert_eq!(admit("busy"), Admission::Refused(Refusal::QueueFull(3)));
    assert_eq!(admit("other"), Admission::Refused(Refusal::QueueFull(3)));
    assert_eq!(gate.waiting(), 3);
}

/// A newcomer that is refused leaves no trace, though it would have been next: who was next before is told its own time.
#[test]
fn a_newcomer_refused_by_a_full_queue_delays_nobody() {
    let rates = [(Dimension::Tokens, rate(60, MINUTE).with_burst(60).unwrap().with_window(false))];
    let mut gate: Gate<()> = support::gate(Config { max_waiting: Some(1), ..config(&rates, 0) }, 0);
    let mut admit = |amount, priority| {
        let request = Request { cost: tokens(amount), priority, ..Request::default() };
        (gate.admit(0, &request, &mut Vec::new()), gate.next_event())
    };
    assert!(matches!(admit(60, 0), (Admission::Granted(_), None)));
    assert!(matches!(admit(5, 0), (Admission::Queued(_), Some(event)) if event == 5 * SECOND));
    assert_eq!(admit(50, 1), (Admission::Refused(Refusal::QueueFull(1)), Some(5 * SECOND)));
}

/// What one key may use says nothing about calls without a key.
#[test]
fn a_call_without_a_key_is_not_bound_by_what_a_key_may_use() {
    let mut gate: Gate<()> = support::gate(with_per_key(2, None), 0);
    let cost = CALL.with(Dimension::Requests, 3);
    let mut admit = |key| gate.admit(0, &Request { cost, key, ..Request::default() }, &mut Vec::new());
    assert!(matches!(admit(Some("ada")), Admission::Refused(Refusal::Oversize(_))));
    assert!(matches!(admit(None), Admission::Granted(_)));
}

/// A hundred thousand keys, with sizes from 1 to all there is: each decision stays short, whether keys share, are set
/// aside by limits of their own, or leave. The bounds are many times what it takes; a loop over all keys per decision
/// would take minutes.
#[test]
fn a_hundred_thousand_keys_are_no_burden() {
    const KEYS: usize = 100_000;
    let names: Vec<_> = (0..KEYS).map(|who| format!("key {who}")).collect();
    let mut chance = Chance::new(4);
    for per_key in [false, true] {
        let shared = vec![(Dimension::Tokens, rate(1_000_000_000, MINUTE))];
        let own = PerKey { rates: vec![(Dimension::Requests, rate(1, SECOND))], concurrency: Some(1) };
        let config = Config { rates: shared, per_key: per_key.then_some(own), ..Config::default() };
        let mut line = Line::new(config);
        let start = processor_time();
        let mut tickets = HashMap::new();
        for round in 0..2 {
            for (who, name) in names.iter().enumerate() {
                let amount = if chance.one_in(1_000) { 1_000_000 } else { chance.tokens() };
                let request = Request { cost: tokens(amount), key: Some(name), ..Request::default() };
                if let Some(ticket) = line.ask(who, &request)
                    && round == 1
                {
                    tickets.insert(who, ticket);
                }
            }
        }
        for (who, ticket) in &tickets {
            if who % 3 == 0 {
                line.gate.cancel(line.now, *ticket);
            }
        }
        let mut longest = Duration::ZERO;
        let mut steps = 0;
        while line.gate.waiting() > 0 {
            let step = processor_time();
            assert!(line.step());
            longest = longest.max(processor_time().saturating_sub(step));
            steps += 1;
        }
        let took = processor_time().saturating_sub(start);
        assert!(took < Duration::from_secs(20), "{took:?} in {steps} steps, the longest {longest:?}");
    }
}
