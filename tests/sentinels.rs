//! Who must be awake, and when: whoever the gate names as a sentinel. Driven by those times alone, with no other hint,
//! everyone leaves, and nobody later than the rates allow.

mod support;

use penstock::clock::{Nanos, SECOND};
use penstock::cost::Dimension;
use penstock::gate::{Admission, Config, Gate, Grant, Request};
use penstock::keys::PerKey;
use penstock::queue::Ticket;
use support::{CALL, MINUTE, rate};

fn of_keys(concurrency: Option<u64>) -> Gate<()> {
    let rates = vec![(Dimension::Requests, rate(1, MINUTE).with_window(false))];
    let per_key = Some(PerKey { rates, concurrency });
    support::gate(Config { per_key, network_jitter: Some(0), ..Config::default() }, 0)
}

fn ask(gate: &mut Gate<()>, now: Nanos, key: &str) -> Result<Grant, Ticket> {
    let request = Request { cost: CALL, key: Some(key), ..Request::default() };
    match gate.admit(now, &request, &mut Vec::new()) {
        Admission::Granted(grant) => Ok(grant),
        Admission::Queued(ticket) => Err(ticket),
        Admission::Refused(refusal) => panic!("{refusal}"),
    }
}

#[test]
fn who_waits_for_its_own_key_is_told_when_to_look() {
    let mut gate = of_keys(None);
    assert!(ask(&mut gate, 0, "a").is_ok());
    let first = ask(&mut gate, 0, "a").unwrap_err();
    let second = ask(&mut gate, 0, "a").unwrap_err();
    assert_eq!(gate.sentinels(), [None, Some((MINUTE, first))]);
    assert_eq!(gate.expected(0, first), Some(MINUTE));
    assert_eq!(gate.expected(0, second), Some(2 * MINUTE), "exact, so that it sleeps once");
    let mut settled = Vec::new();
    gate.pump(MINUTE, &mut settled);
    assert_eq!(settled.len(), 1);
    assert_eq!(gate.sentinels(), [None, Some((2 * MINUTE, second))]);
}

#[test]
fn a_key_that_a_release_sets_free_for_a_later_time_has_a_sentinel() {
    let mut gate = of_keys(Some(1));
    let grant = ask(&mut gate, 0, "a").unwrap();
    let waiting = ask(&mut gate, 0, "a").unwrap_err();
    assert_eq!((gate.sentinels(), gate.expected(0, waiting)), ([None, None], None), "only a release can help");
    gate.release(SECOND, &grant);
    gate.pump(SECOND, &mut Vec::new());
    assert_eq!(gate.sentinels(), [None, Some((MINUTE, waiting))]);
}

#[test]
fn sentinels_alone_see_everyone_off() {
    let mut gate = of_keys(None);
    let keys = ["a", "b", "c"];
    for key in keys.iter().cycle().take(30) {
        let _ = ask(&mut gate, 0, key);
    }
    let mut left = 0;
    let mut now = 0;
    while let Some((at, _)) = gate.sentinels().into_iter().flatten().min() {
        assert!(at > now, "a sentinel is never woken for nothing");
        now = at;
        let mut settled = Vec::new();
        gate.pump(now, &mut settled);
        assert_eq!(settled.len(), keys.len());
        left += settled.len();
    }
    assert_eq!((left, now, gate.waiting()), (27, 9 * MINUTE, 0));
}
