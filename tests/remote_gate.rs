//! A gate whose store is at a distance, without one: what the store would say is said here, in virtual time.

use penstock::clock::{Nanos, SECOND};
use penstock::cost::{Cost, Dimension};
use penstock::gate::{Admission, Config, Gate, OnFailure, Outcome, Refusal, Request};
use penstock::provider::{Headers, Provider, read};
use penstock::queue::Ticket;
use penstock::rate::Rate;
use penstock::store::redis::link::{Denial, Event, Notes};
use penstock::store::redis::wire::{Counted, Limits, Places, Spent};

/// Ten a second, ten at once.
fn gate() -> Gate<u32> {
    let rate = Rate::new(600, 60 * SECOND).unwrap();
    let config = Config { rates: vec![(Dimension::Requests, rate)], ..Config::default() };
    Gate::remote(config, OnFailure::Share, 0)
}

fn of_openai() -> Gate<u32> {
    Gate::remote(Config { discover: Some(Provider::OpenAi), ..Config::default() }, OnFailure::Share, 0)
}

fn ask(gate: &mut Gate<u32>, now: Nanos, timeout: Option<Nanos>) -> Result<Ticket, Refusal> {
    let request = Request { cost: Cost { requests: 1, ..Cost::default() }, timeout, ..Request::default() };
    match gate.admit(now, &request, &mut Vec::new()) {
        Admission::Queued(ticket) => Ok(ticket),
        Admission::Refused(refusal) => Err(refusal),
        Admission::Granted(_) => panic!("only the store grants"),
    }
}

fn hear(gate: &mut Gate<u32>, now: Nanos, event: Event) -> Vec<Outcome> {
    let mut settled = Vec::new();
    gate.hear(now, event, &mut settled);
    settled.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Asks the store, which lets everybody leave.
fn leave(gate: &mut Gate<u32>, now: Nanos) {
    let granted = gate.outgoing(now).asks.into_iter().map(|(ticket, ask)| (ticket, 0, ask)).collect();
    assert!(hear(gate, now, Event::Granted(granted)).iter().all(Result::is_ok));
}

fn observe(gate: &mut Gate<u32>, now: Nanos, headers: &[(&str, &str)]) -> Notes {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    let reading = read(Provider::OpenAi, 200, Headers::new(&headers), b"", 0.0);
    gate.observe(now, &reading, None, &mut Vec::new());
    gate.outgoing(now)
}

#[test]
fn a_refusal_says_what_the_store_said_and_not_what_this_process_used() {
    let mut gate = gate();
    // Others have used it all: here nothing is.
    let ticket = ask(&mut gate, 0, Some(5 * SECOND)).unwrap();
    assert_eq!(gate.outgoing(0).asks.len(), 1);
    let denied = Event::Denied(vec![(ticket, Denial::Later(40 * SECOND))], 0);
    assert_eq!(hear(&mut gate, 0, denied), [Err(Refusal::Timeout(40 * SECOND))]);
    // Some was used here, so that even that is too long: the store knows how much too long.
    for _ in 0..10 {
        ask(&mut gate, 0, None).unwrap();
    }
    leave(&mut gate, 0);
    let ticket = ask(&mut gate, 0, Some(SECOND / 20)).unwrap();
    assert_eq!(gate.outgoing(0).asks.len(), 1);
    let denied = Event::Denied(vec![(ticket, Denial::Later(7 * SECOND))], 0);
    assert_eq!(hear(&mut gate, 0, denied), [Err(Refusal::Timeout(7 * SECOND))]);
    assert_eq!(gate.counts().timeouts, 2);
}

#[test]
fn who_comes_behind_one_that_must_wait_is_told_of_that_wait_and_of_those_between() {
    let mut gate = gate();
    let [first, in_time, late, hasty] = [None, Some(35 * SECOND), Some(5 * SECOND), Some(0)].map(|timeout| {
        let ticket = ask(&mut gate, 0, timeout).unwrap();
        assert_eq!(gate.outgoing(0).asks.len(), 1);
        ticket
    });
    let behind = [in_time, late, hasty].map(|ticket| (ticket, Denial::Behind));
    let denied = [&[(first, Denial::Later(30 * SECOND))], &behind[..]].concat();
    let told = hear(&mut gate, 0, Event::Denied(denied, 0));
    assert_eq!(told, [Err(Refusal::Timeout(30 * SECOND)), Err(Refusal::Timeout(30 * SECOND))]);
    assert_eq!(gate.waiting(), 2);
    // Who comes now.
    assert_eq!(ask(&mut gate, SECOND, Some(5 * SECOND)), Err(Refusal::Timeout(29 * SECOND)));
    assert_eq!(ask(&mut gate, SECOND, Some(0)), Err(Refusal::Timeout(29 * SECOND)));
    // Ten would leave at once: the fourteenth comes 0.4 s after the first of them.
    for _ in 0..11 {
        ask(&mut gate, SECOND, None).unwrap();
    }
    let Err(Refusal::Timeout(wait)) = ask(&mut gate, SECOND, Some(5 * SECOND)) else { panic!("it is late") };
    assert_eq!(wait, 29 * SECOND + 4 * SECOND / 10);
    // And who has waited until the time is over.
    hear(&mut gate, 30 * SECOND, Event::Ready);
    let asks = gate.outgoing(30 * SECOND).asks;
    assert_eq!(asks[0].0, first);
    let denied = asks
        .iter()
        .map(|&(ticket, _)| (ticket, if ticket == first { Denial::Later(34 * SECOND) } else { Denial::Behind }));
    assert!(hear(&mut gate, 30 * SECOND, Event::Denied(denied.collect(), 0)).is_empty());
    let mut settled = Vec::new();
    gate.pump(35 * SECOND, &mut settled);
    assert!(matches!(settled[..], [(_, Err(Refusal::Timeout(_)))]), "{settled:?}");
    let ended = hear(&mut gate, 33 * SECOND, Event::Ready);
    assert!(ended.is_empty());
}

#[test]
fn when_the_one_that_is_held_up_gives_up_the_next_asks() {
    let mut gate = gate();
    let first = ask(&mut gate, 0, None).unwrap();
    gate.outgoing(0);
    hear(&mut gate, 0, Event::Denied(vec![(first, Denial::Later(60 * SECOND))], 0));
    let second = ask(&mut gate, SECOND, None).unwrap();
    assert!(gate.outgoing(SECOND).asks.is_empty());
    assert!(gate.cancel(2 * SECOND, first).is_some());
    let asks = gate.outgoing(2 * SECOND).asks;
    assert_eq!(asks.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), [second]);
    // Now or never is asked for as well: nobody is before it.
    assert!(gate.cancel(2 * SECOND, second).is_some());
    let hasty = ask(&mut gate, 2 * SECOND, Some(0)).unwrap();
    assert_eq!(gate.outgoing(2 * SECOND).asks[0].0, hasty);
}

#[test]
fn limits_that_others_were_given_hold_here() {
    let mut gate = gate();
    let large = Request { cost: Cost { requests: 700, ..Cost::default() }, ..Request::default() };
    assert!(matches!(gate.admit(0, &large, &mut Vec::new()), Admission::Refused(Refusal::Oversize(_))));
    let rates = vec![
        (Dimension::Requests, Rate::new(6_000, 60 * SECOND).unwrap()),
        (Dimension::Tokens, Rate::new(90_000, 60 * SECOND).unwrap()),
    ];
    hear(&mut gate, 0, Event::Limits(Limits::given(rates.clone(), 7, None), 5));
    assert_eq!(gate.concurrency(), Some(7));
    assert_eq!(gate.limits().rates, rates);
    let Admission::Queued(ticket) = gate.admit(0, &large, &mut Vec::new()) else { panic!("it can leave") };
    assert!(gate.outgoing(0).limits.is_none(), "they are known there");
    // It can no longer.
    let given = Limits::given(vec![rates[1]], 0, None);
    hear(&mut gate, 0, Event::Limits(given, 6));
    let small = vec![(Dimension::Requests, Rate::new(600, 60 * SECOND).unwrap())];
    let told = hear(&mut gate, 0, Event::Limits(Limits::given(small, 0, None), 7));
    assert!(matches!(told[..], [Err(Refusal::Oversize(_))]), "{told:?}");
    assert!(gate.payload(ticket).is_none());
    assert_eq!(gate.concurrency(), None);
    // What is changed here replaces that and nothing else.
    gate.update(0, Dimension::OutputTokens, &[Rate::new(5, SECOND).unwrap()], &mut Vec::new());
    let notes = gate.outgoing(0);
    let limits = notes.limits.unwrap();
    assert_eq!((limits.owned, limits.found), (Places::of(Dimension::OutputTokens), Places::default()));
    assert_eq!(notes.edition, Some(7));
}

#[test]
fn limits_that_are_found_out_are_told_with_what_is_used_and_taken_over_from_others() {
    let (mut one, mut two) = (of_openai(), of_openai());
    let begin = one.limits();
    let open: Places = Dimension::ALL.into_iter().collect();
    assert_eq!((begin.owned, begin.found), (Places::CONCURRENCY, open));
    assert_eq!(begin.of(Dimension::Requests)[0].amount(), 20);
    let headers = [
        ("x-ratelimit-limit-requests", "500"),
        ("x-ratelimit-remaining-requests", "420"),
        ("x-ratelimit-limit-tokens", "30000"),
        ("x-ratelimit-remaining-tokens", "30000"),
    ];
    let notes = observe(&mut one, SECOND, &headers);
    let found = notes.limits.expect("it is news");
    let both = Places::of(Dimension::Requests).and(Places::of(Dimension::Tokens));
    assert_eq!((found.owned, found.found, found.told), (Places::default(), both, both));
    let requests = |used| Counted { dimension: Dimension::Requests, period: 60 * SECOND, used };
    assert_eq!(notes.counted[0], requests(80));
    assert!(observe(&mut one, SECOND, &headers).limits.is_none(), "it is told once");

    // The other goes on with them, and need not find them out: the same answer is no news to it.
    let shared = Limits { owned: Places::CONCURRENCY, found: Places::default(), ..found };
    hear(&mut two, SECOND, Event::Limits(shared.clone(), 9));
    assert_eq!(two.limits().rates, shared.rates);
    assert_eq!(two.limits().told, both);
    let notes = observe(&mut two, 2 * SECOND, &headers);
    assert!(notes.limits.is_none() && notes.counted.is_empty(), "{notes:?}");
    // A lower one is.
    let lower = [("x-ratelimit-limit-tokens", "20000"), ("x-ratelimit-remaining-tokens", "20000")];
    let notes = observe(&mut two, 3 * SECOND, &lower);
    let limits = notes.limits.unwrap();
    assert_eq!((limits.found, notes.edition), (Places::of(Dimension::Tokens), Some(9)));
    // Whoever is given a limit no longer looks for it.
    let tokens = vec![(Dimension::Tokens, Rate::new(50_000, 60 * SECOND).unwrap())];
    hear(&mut two, 4 * SECOND, Event::Limits(Limits::given(tokens, 0, None), 10));
    assert!(observe(&mut two, 5 * SECOND, &lower).limits.is_none());
}

#[test]
fn what_is_found_out_while_the_store_is_away_is_told_when_it_is_back() {
    let mut gate = of_openai();
    hear(&mut gate, 0, Event::Members(2));
    hear(&mut gate, 0, Event::Away { why: "gone".into(), misconfigured: false });
    let headers = [("x-ratelimit-limit-requests", "600"), ("x-ratelimit-remaining-requests", "600")];
    let limits = observe(&mut gate, SECOND, &headers).limits.expect("it is kept until then");
    assert_eq!(limits.of(Dimension::Requests)[0].amount(), 600);
    // Meanwhile half of it is this process's.
    let level = gate.levels(SECOND)[0];
    assert_eq!((level.rate.amount(), level.rate.period()), (600, 120 * SECOND));
    hear(&mut gate, 2 * SECOND, Event::Back { members: 2, lost: false });
    assert_eq!(gate.levels(2 * SECOND)[0].rate.period(), 60 * SECOND);
    assert_eq!(gate.limits().of(Dimension::Requests)[0].amount(), 600);
}

#[test]
fn whatever_may_let_the_one_that_is_held_up_leave_has_it_asked_again() {
    let mut gate = gate();
    ask(&mut gate, 0, None).unwrap();
    let granted: Vec<_> = gate.outgoing(0).asks.into_iter().map(|(ticket, ask)| (ticket, 0, ask)).collect();
    let mut left = Vec::new();
    gate.hear(0, Event::Granted(granted), &mut left);
    let Some((_, Ok(mut grant))) = left.pop() else { panic!("it leaves") };
    let held = ask(&mut gate, 0, None).unwrap();
    let is_asked = |gate: &mut Gate<u32>| !gate.outgoing(SECOND).asks.is_empty();
    let deny = |gate: &mut Gate<u32>| {
        assert!(is_asked(gate));
        hear(gate, SECOND, Event::Denied(vec![(held, Denial::Later(60 * SECOND))], 0));
        assert!(!is_asked(gate));
    };
    deny(&mut gate);
    // A debit is no reason; a refund is.
    gate.settle(SECOND, &mut grant, &Cost { requests: 2, ..Cost::default() });
    assert!(!is_asked(&mut gate));
    gate.settle(SECOND, &mut grant, &Cost::default());
    deny(&mut gate);
    gate.update(SECOND, Dimension::Requests, &[Rate::new(900, 60 * SECOND).unwrap()], &mut Vec::new());
    deny(&mut gate);
    let given = Limits::given(vec![(Dimension::Requests, Rate::new(700, 60 * SECOND).unwrap())], 0, None);
    hear(&mut gate, SECOND, Event::Limits(given, 3));
    assert!(is_asked(&mut gate));
}

#[test]
fn what_another_process_tried_is_not_tried_again() {
    let bedrock = || {
        let config = Config { discover: Some(Provider::Bedrock), ..Config::default() };
        Gate::<u32>::remote(config, OnFailure::Share, 0)
    };
    let limits = |amount, burst| {
        let rate = Rate::new(amount, 60 * SECOND).unwrap().with_burst(burst).unwrap();
        let found = Places::of(Dimension::Requests);
        let owned = Places::ALL.without(found);
        Limits { rates: vec![(Dimension::Requests, rate)], owned, ..Limits::default() }
    };
    // While calls wait, an answer has the rate rise.
    let rises = |gate: &mut Gate<u32>, now| {
        ask(gate, now, None).unwrap();
        gate.observe(now, &read(Provider::Bedrock, 200, Headers::new(&[]), b"", 0.0), None, &mut Vec::new());
        gate.outgoing(now).limits.map(|limits| limits.of(Dimension::Requests)[0].amount())
    };
    // One that doubles goes on doubling, once for all: the next is not due before the usual time is over.
    let mut gate = bedrock();
    hear(&mut gate, 10 * SECOND, Event::Limits(limits(600, 2), 5));
    assert_eq!(rises(&mut gate, 11 * SECOND), None);
    assert_eq!(rises(&mut gate, 15 * SECOND), Some(1_200));
    // It was refused elsewhere: from there on it rises slowly, here as well.
    hear(&mut gate, 16 * SECOND, Event::Limits(limits(1_000, 16), 6));
    assert_eq!(rises(&mut gate, 25 * SECOND), None);
    assert_eq!(rises(&mut gate, 32 * SECOND), Some(1_010));
    // And so it does for one that begins.
    let mut late = bedrock();
    hear(&mut late, 0, Event::Limits(limits(1_000, 16), 6));
    assert_eq!(rises(&mut late, 10 * SECOND), None);
    assert_eq!(rises(&mut late, 16 * SECOND), Some(1_010));
}

#[test]
fn what_an_answer_says_before_the_store_was_asked_is_told_again_when_its_limits_are_known() {
    let told = |notes: &Notes| notes.learned.iter().map(|one| (one.dimension, one.amount)).collect::<Vec<_>>();
    let rates = vec![
        (Dimension::Requests, Rate::new(600, 60 * SECOND).unwrap()),
        (Dimension::Tokens, Rate::new(90_000, 60 * SECOND).unwrap()),
    ];
    let config = Config { rates: rates.clone(), network_jitter: Some(SECOND), ..Config::default() };
    let mut gate: Gate<u32> = Gate::remote(config, OnFailure::Share, 0);
    // Of what no answer has named another process may know more.
    let lower = [("x-ratelimit-limit-requests", "60")];
    let notes = observe(&mut gate, 0, &lower);
    assert_eq!((told(&notes), notes.edition), (vec![(Dimension::Requests, 60)], Some(0)));
    assert!(observe(&mut gate, 0, &lower).learned.is_empty(), "it is told once");
    // The store had limits of its own edition by then, and did not know of which that was.
    hear(&mut gate, 0, Event::Limits(Limits::given(rates.clone(), 0, None), 5));
    let notes = gate.outgoing(0);
    assert_eq!((told(&notes), notes.edition), (vec![(Dimension::Requests, 60)], Some(5)));
    // Of other rates nothing was said.
    let others = vec![(Dimension::Requests, Rate::new(300, 60 * SECOND).unwrap()), rates[1]];
    hear(&mut gate, 0, Event::Limits(Limits::given(others, 0, None), 6));
    assert!(gate.outgoing(0).learned.is_empty());
    let tokens = [("x-ratelimit-limit-tokens", "1000")];
    let mut notes = observe(&mut gate, SECOND, &tokens);
    assert_eq!((told(&notes), notes.edition), (vec![(Dimension::Tokens, 1_000)], Some(6)));
    // What waits to be told is put together, the later word on each.
    notes.append(observe(&mut gate, SECOND, &lower));
    notes.append(observe(&mut gate, SECOND, &[("x-ratelimit-limit-tokens", "500")]));
    assert_eq!(told(&notes), [(Dimension::Requests, 60), (Dimension::Tokens, 500)]);
}

#[test]
fn a_quota_that_is_back_is_not_spent_again_by_an_answer_that_was_under_way() {
    let mut gate = gate();
    let spent = Spent { lasts: 3_600 * SECOND, resets_at: None, dimension: None };
    hear(&mut gate, SECOND, Event::Spent(spent, SECOND / 2));
    assert!(matches!(ask(&mut gate, SECOND, None), Err(Refusal::Exhausted(_))));
    assert_eq!(observe(&mut gate, 2 * SECOND, &[]).spent.map(|spent| spent.lasts), Some(0), "all are told");
    // The store had not been told yet when it said this.
    hear(&mut gate, 3 * SECOND, Event::Spent(spent, 2 * SECOND));
    ask(&mut gate, 3 * SECOND, None).unwrap();
    // This it has heard from another process since.
    hear(&mut gate, 4 * SECOND, Event::Spent(spent, 3 * SECOND));
    assert!(matches!(ask(&mut gate, 4 * SECOND, None), Err(Refusal::Exhausted(_))));
}
