//! The script, run by a real server, against the core's own arithmetic and against brute force. Times are the test's.

mod redis_server;

use penstock::clock::SECOND;
use penstock::cost::{Cost, Dimension};
use penstock::ledger::Ledger;
use penstock::rate::Rate;
use penstock::store::redis::wire::{Ask, Cooldown, Counted, Decision, Learned, Left, Limits, Places, Settle};
use redis_server::{Process, Server};

const MICROS: i64 = 1_000_000;
const BEGIN: i64 = 1_800_000_000 * MICROS;

fn limits(rates: &[(Dimension, Rate)], concurrency: u64) -> Limits {
    Limits::given(rates.to_vec(), concurrency, Some(0))
}

fn call(tokens: u64) -> Ask {
    Ask { cost: Cost { requests: 1, tokens, ..Cost::default() }, slot: true, patience: None }
}

/// A generator that is the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, range: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % range
    }
}

#[test]
fn every_decision_is_the_one_that_the_core_would_make() {
    let server = Server::start();
    let mut random = Random(7);
    let shapes = [
        Rate::new(1, 86_400 * SECOND).unwrap(),
        Rate::new(500, 60 * SECOND).unwrap(),
        Rate::new(500, 60 * SECOND).unwrap().with_burst(500).unwrap(),
        Rate::new(7_000_000_000, 60 * SECOND).unwrap().with_burst(1).unwrap(),
        Rate::new(10_000_000_000, 60 * SECOND).unwrap(),
        Rate::new(3, SECOND).unwrap(),
    ];
    for (number, &rate) in shapes.iter().enumerate() {
        let rates = [(Dimension::Tokens, rate.with_window(false))];
        let mut ledger = Ledger::new(&rates, Some(0), 0);
        let mut process = Process::join(&server, &format!("same-{number}"), "a", limits(&rates, 0), BEGIN);
        let mut now = BEGIN;
        let mean = (rate.period() / 1_000 / rate.amount()).max(1);
        for _ in 0..3_000 {
            now += i64::try_from(random.below(2 * mean)).unwrap();
            let amount = if random.below(20) == 0 {
                rate.amount().min(rate.burst() * 3)
            } else {
                1 + random.below(rate.burst())
            };
            let ask = Ask { cost: Cost { tokens: amount, ..Cost::default() }, slot: true, patience: None };
            process.message.asks = vec![ask];
            let done = process.say(now).unwrap();
            let local = u64::try_from(now - BEGIN).unwrap() * 1_000;
            let due = ledger.earliest_behind(&Cost::default(), &ask.cost, local);
            let theirs = match done.decisions[0] {
                Decision::At(at) => {
                    assert_eq!(at, now);
                    ledger.charge(&ask.cost, local, local);
                    local
                }
                Decision::NotBefore(at) => u64::try_from(at - BEGIN).unwrap() * 1_000,
                other => panic!("{other:?}"),
            };
            // A whole microsecond, and the rounding of a double.
            let slack = 1_001 + due.saturating_sub(local) / 1_000_000_000;
            assert!(theirs.abs_diff(due) <= slack, "{rate} {amount}: {theirs} {due}");
        }
    }
}

#[test]
fn no_window_sees_more_than_the_amount_and_little_is_lost() {
    let server = Server::start();
    let mut random = Random(11);
    let rate = Rate::new(1_000, 10 * SECOND).unwrap().with_burst(300).unwrap();
    let mut process = Process::join(&server, "window", "a", limits(&[(Dimension::Tokens, rate)], 0), BEGIN);
    (process.message.horizon, process.message.reach) = (20_000, 600_000);
    let mut left: Vec<(i64, u64)> = Vec::new();
    let (mut now, end) = (BEGIN, BEGIN + 120 * MICROS);
    while now < end {
        let asks = 1 + random.below(8);
        process.message.asks = (0..asks).map(|_| call(1 + random.below(40))).collect();
        let asked = process.message.asks.clone();
        let mut next = now + 100;
        for (ask, decision) in asked.iter().zip(process.say(now).unwrap().decisions) {
            match decision {
                Decision::At(at) => left.push((at, ask.cost.tokens)),
                Decision::NotBefore(at) => next = next.max(at - 20_000),
                _ => {}
            }
        }
        now = next;
    }
    left.sort_unstable();
    let total: u64 = left.iter().filter(|(at, _)| *at < end).map(|(_, tokens)| tokens).sum();
    let (mut from, mut within) = (0, 0);
    for &(at, tokens) in &left {
        within += tokens;
        while left[from].0 + 10 * MICROS <= at {
            within -= left[from].1;
            from += 1;
        }
        assert!(within <= 1_000, "{within} in ten seconds");
    }
    assert!(total >= 11_700, "{total} of 12,000"); // a call that does not fit leaves a gap
}

#[test]
fn amounts_from_one_a_day_to_ten_billion_a_minute_are_exact() {
    let server = Server::start();
    for (number, (amount, seconds, cost)) in [
        (1, 86_400, 1),
        (7, 3_600, 1),
        (10_000_000_000_u64, 60, 99_991),
        (7_000_000_000, 60, 1),
        (1_000_000_000_000_000, 60, 1 << 40),
    ]
    .into_iter()
    .enumerate()
    {
        let rate = Rate::new(amount, seconds * SECOND).unwrap().with_window(false);
        let rate = if cost == 1 { rate.with_burst(1).unwrap() } else { rate };
        let mut process =
            Process::join(&server, &format!("exact-{number}"), "a", limits(&[(Dimension::Tokens, rate)], 0), BEGIN);
        (process.message.horizon, process.message.reach) = (0, 1 << 40);
        let (mut sent, mut last) = (0_u64, 0);
        for _ in 0..300 {
            process.message.asks = vec![call(cost); if amount > 1_000 { 2_000 } else { 1 }];
            process.message.horizon = if amount > 1_000 { MICROS } else { 0 };
            for decision in process.say(BEGIN.max(last)).unwrap().decisions {
                let Decision::At(at) = decision else { continue };
                sent += cost;
                last = at;
            }
        }
        #[allow(clippy::cast_precision_loss)]
        let exact = rate.burst() as f64 + (last - BEGIN) as f64 / 1e6 * amount as f64 / seconds as f64;
        #[allow(clippy::cast_precision_loss)]
        let share = sent as f64 / exact;
        // Up to one call's worth is not a whole one yet.
        #[allow(clippy::cast_precision_loss)]
        let slack = 1e-4 + cost as f64 / sent as f64 / 2.0;
        assert!((share - 1.0).abs() < slack, "{rate} sent {sent} of {exact}");
    }
}

#[test]
fn settling_refunds_into_the_charged_window_or_debits_now() {
    let server = Server::start();
    let rate = Rate::new(1_000, 60 * SECOND).unwrap().with_burst(1_000).unwrap();
    let mut process = Process::join(&server, "settle", "a", limits(&[(Dimension::Tokens, rate)], 0), BEGIN);
    let ask = |process: &mut Process, tokens, now| {
        process.message.asks = vec![call(tokens)];
        process.say(now).unwrap().decisions[0]
    };
    assert_eq!(ask(&mut process, 1_000, BEGIN), Decision::At(BEGIN));
    let settle = |at, more| Settle { at, more: [0, more, 0, 0] };
    process.message.settles = vec![settle(BEGIN, -400)];
    assert_eq!(ask(&mut process, 401, BEGIN + MICROS), Decision::NotBefore(BEGIN + 60 * MICROS));
    assert_eq!(ask(&mut process, 400, BEGIN + MICROS), Decision::At(BEGIN + MICROS));
    // A debit counts from now on.
    process.message.settles = vec![settle(BEGIN, 100)];
    assert_eq!(ask(&mut process, 1_000, BEGIN + 60 * MICROS + 1), Decision::NotBefore(BEGIN + 120 * MICROS + 1));
    // What has left the window is not given back.
    process.message.settles = vec![settle(BEGIN, -600)];
    assert_eq!(ask(&mut process, 1_000, BEGIN + 60 * MICROS + 2), Decision::NotBefore(BEGIN + 120 * MICROS + 1));
}

#[test]
fn slots_belong_to_processes_and_come_back_when_one_is_gone() {
    let server = Server::start();
    let mut a = Process::join(&server, "slots", "a", limits(&[], 2), BEGIN);
    let mut b = Process::join(&server, "slots", "b", limits(&[], 2), BEGIN);
    a.message.asks = vec![call(0); 3];
    assert_eq!(a.say(BEGIN).unwrap().decisions, [Decision::At(BEGIN), Decision::At(BEGIN), Decision::NoSlot(None)]);
    b.message.asks = vec![call(0)];
    assert_eq!(b.say(BEGIN).unwrap().decisions, [Decision::NoSlot(None)]);
    // Given back once, however often it is said.
    a.message.released = 1;
    a.say(BEGIN + 1).unwrap();
    a.say(BEGIN + 1).unwrap();
    // It goes to the one that has waited for longest, and not to who asks first.
    b.message.asks = vec![call(0)];
    assert!(matches!(b.say(BEGIN + 2).unwrap().decisions[0], Decision::At(_)));
    // B stays, A is silent for longer than its lease.
    for second in [4, 8] {
        b.say(BEGIN + second * MICROS).unwrap();
    }
    b.message.asks = vec![call(0)];
    assert_eq!(b.say(BEGIN + 9 * MICROS).unwrap().decisions, [Decision::NoSlot(None)]);
    let done = b.say(BEGIN + 11 * MICROS).unwrap();
    assert_eq!(done.members, 1);
    b.message.asks = vec![call(0)];
    assert!(matches!(b.say(BEGIN + 11 * MICROS).unwrap().decisions[0], Decision::At(_)));
    // What A says of the time before counts for nothing: B still holds both.
    a.message.released = 2;
    a.message.settles = vec![Settle { at: BEGIN, more: [-5, 0, 0, 0] }];
    assert_eq!(a.say(BEGIN + 12 * MICROS), None);
    b.message.asks = vec![call(0)];
    assert_eq!(b.say(BEGIN + 12 * MICROS).unwrap().decisions, [Decision::NoSlot(None)]);
    // It comes back as another, and says what is still under way there: more than allowed, and nobody else leaves.
    (a.message.epoch, a.message.released, a.message.holds) = (2, 0, 1);
    a.register(BEGIN + 13 * MICROS);
    b.message.released = 1;
    b.message.asks = vec![call(0)];
    assert_eq!(b.say(BEGIN + 14 * MICROS).unwrap().decisions, [Decision::NoSlot(None)]);
    b.message.leaving = true;
    b.say(BEGIN + 15 * MICROS).unwrap();
    a.message.asks = vec![call(0), call(0)];
    let decisions = a.say(BEGIN + 15 * MICROS).unwrap().decisions;
    assert!(matches!(decisions[..], [Decision::At(_), Decision::NoSlot(None)]), "{decisions:?}");
}

#[test]
fn who_waits_for_a_slot_is_told_and_not_overtaken_by_who_asks_more_often() {
    let server = Server::start();
    let mut a = Process::join(&server, "line", "a", limits(&[], 1), BEGIN);
    let mut b = Process::join(&server, "line", "b", limits(&[], 1), BEGIN);
    let mut listener = server.connect();
    let mut listener = listener.as_pubsub();
    listener.subscribe(penstock::store::redis::channel("line", "b")).unwrap();
    listener.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    a.message.asks = vec![call(0)];
    assert!(matches!(a.say(BEGIN).unwrap().decisions[0], Decision::At(_)));
    b.message.asks = vec![call(0)];
    assert_eq!(b.say(BEGIN).unwrap().decisions[0], Decision::NoSlot(None));
    // A gives its slot back and asks for another in the same message: B is before it.
    a.message.released = 1;
    a.message.asks = vec![call(0)];
    let Decision::NoSlot(Some(again)) = a.say(BEGIN + 10).unwrap().decisions[0] else { panic!("B is first") };
    assert_eq!(listener.get_message().unwrap().get_payload::<String>().unwrap(), "1");
    // B does not come: it may be stopped. After a moment A need not wait for it any longer.
    a.message.asks = vec![call(0)];
    assert!(matches!(a.say(again - 1).unwrap().decisions[0], Decision::NoSlot(Some(_))));
    a.message.asks = vec![call(0)];
    assert!(matches!(a.say(again + 20).unwrap().decisions[0], Decision::At(_)));
}

#[test]
fn who_waits_for_a_slot_keeps_its_place_whatever_else_it_says() {
    let server = Server::start();
    let [mut a, mut b, mut c] =
        ["a", "b", "c"].map(|name| Process::join(&server, "place", name, limits(&[], 1), BEGIN));
    a.message.asks = vec![call(0)];
    a.say(BEGIN).unwrap();
    for process in [&mut b, &mut c] {
        process.message.asks = vec![call(0)];
        assert_eq!(process.say(BEGIN).unwrap().decisions[0], Decision::NoSlot(None));
        process.message.waits = true;
    }
    // A settlement, or that it is alive.
    b.say(BEGIN + 1).unwrap();
    a.message.released = 1;
    a.say(BEGIN + 2).unwrap();
    c.message.asks = vec![call(0)];
    assert!(matches!(c.say(BEGIN + 3).unwrap().decisions[0], Decision::NoSlot(Some(_))), "B is first");
    b.message.asks = vec![call(0)];
    assert!(matches!(b.say(BEGIN + 4).unwrap().decisions[0], Decision::At(_)));
    // One whose calls have given up says so with its next word.
    c.message.waits = false;
    c.say(BEGIN + 5).unwrap();
    b.message.released = 1;
    b.message.asks = vec![call(0)];
    assert!(matches!(b.say(BEGIN + 6).unwrap().decisions[0], Decision::At(_)), "nobody else waits");
}

#[test]
fn a_slowdown_ends_when_it_ends_and_nothing_that_is_owed_is_too_far_away_to_be_told() {
    let server = Server::start();
    let rate = Rate::new(60_000, 60 * SECOND).unwrap().with_burst(60_000).unwrap().with_window(false);
    let mut process = Process::join(&server, "slow", "a", limits(&[(Dimension::Tokens, rate)], 0), BEGIN);
    process.message.asks = vec![Ask { slot: false, ..call(60_000) }];
    assert_eq!(process.say(BEGIN).unwrap().decisions[0], Decision::At(BEGIN));
    let (dimension, period) = (Dimension::Tokens, 60 * SECOND);
    process.message.learned = vec![Learned { dimension, period, amount: 60_000, burst: 60_000, speed: 250 }];
    process.say(BEGIN).unwrap();
    // A minute at a quarter of the speed, and then half of one at full speed: not all of it at full speed.
    let now = BEGIN + 80 * MICROS;
    process.message.asks = vec![Ask { slot: false, ..call(60_000) }];
    let Decision::NotBefore(at) = process.say(now).unwrap().decisions[0] else { panic!("it is not full") };
    assert!((at - (now + 25 * MICROS)).abs() < 10, "{}", at - now);

    let rate = Rate::new(1, 366 * 86_400 * SECOND).unwrap();
    let mut process = Process::join(&server, "owes", "a", limits(&[(Dimension::Tokens, rate)], 0), BEGIN);
    process.message.settles = vec![Settle { at: BEGIN, more: [0, i64::MAX, 0, 0] }; 3];
    process.say(BEGIN).unwrap();
    process.message.asks = vec![call(1)];
    let Decision::NotBefore(at) = process.say(BEGIN + 1).unwrap().decisions[0] else { panic!("it owes") };
    assert!(at > BEGIN + (1 << 50), "{at}");
}

#[test]
fn what_was_spent_stays_spent_when_the_period_becomes_another() {
    let server = Server::start();
    let tokens = |amount, seconds| {
        let rate = Rate::new(amount, seconds * SECOND).unwrap().with_burst(amount).unwrap();
        limits(&[(Dimension::Tokens, rate)], 0)
    };
    let mut process = Process::join(&server, "period", "a", tokens(1_000, 60), BEGIN);
    process.message.asks = vec![call(900)];
    assert_eq!(process.say(BEGIN).unwrap().decisions[0], Decision::At(BEGIN));
    tell(&mut process, tokens(1_000, 600), BEGIN + MICROS);
    process.message.asks = vec![call(102), call(101)];
    let decisions = process.say(BEGIN + MICROS).unwrap().decisions;
    // Nothing is filled by the change, and what left stays in the window that is longer now.
    assert!(matches!(decisions[0], Decision::NotBefore(at) if at >= BEGIN + 600 * MICROS), "{decisions:?}");
    tell(&mut process, tokens(1_000, 60), BEGIN + 2 * MICROS);
    process.message.asks = vec![call(1_000)];
    let at = process.say(BEGIN + 2 * MICROS).unwrap().decisions[0];
    assert!(matches!(at, Decision::NotBefore(at) if at >= BEGIN + 55 * MICROS), "{at:?}");
    // A dimension that is no longer counted leaves nothing behind.
    tell(&mut process, limits(&[], 0), BEGIN + 3 * MICROS);
    let names: Vec<String> = redis::cmd("HKEYS").arg("penstock:{period}").query(&mut server.connect()).unwrap();
    assert!(names.iter().all(|name| !name.starts_with("w:")), "{names:?}");
}

#[test]
fn a_script_that_is_killed_has_done_nothing() {
    let server = Server::start();
    redis::cmd("CONFIG").arg(&["SET", "lua-time-limit", "1"]).exec(&mut server.connect()).unwrap();
    let rate = Rate::new(100, 60 * SECOND).unwrap().with_burst(100).unwrap();
    let mut process = Process::join(&server, "killed", "a", limits(&[(Dimension::Tokens, rate)], 0), BEGIN);
    // More than anybody asks at once: it takes a second, and nothing is written before its end.
    let asks = (0..1_000_000).map(|number| Ask { slot: false, patience: Some(0), ..call(1 + number % 2) });
    process.message.asks = asks.collect();
    let mut killer = server.connect();
    let error = std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            process.message.clock = Some(BEGIN + 1);
            process.run()
        });
        while !running.is_finished() {
            let _ = redis::cmd("SCRIPT").arg("KILL").exec(&mut killer);
        }
        running.join().unwrap().expect_err("it was killed before it was done")
    });
    assert!(error.to_string().contains("killed"), "{error}");
    process.message.asks = vec![call(100)];
    assert_eq!(process.say(BEGIN + 2).unwrap().decisions, [Decision::At(BEGIN + 2)], "nothing was charged");
}

#[test]
fn a_clock_that_is_set_back_or_forward_frees_no_burst() {
    let server = Server::start();
    let rate = Rate::new(600, 60 * SECOND).unwrap();
    let mut process = Process::join(&server, "clock", "a", limits(&[(Dimension::Requests, rate)], 1), BEGIN);
    let mut other = Process::join(&server, "clock", "b", limits(&[(Dimension::Requests, rate)], 1), BEGIN);
    let spend = |process: &mut Process, now| {
        process.message.asks = vec![Ask { slot: false, ..call(0) }; 1_000];
        let decisions = process.say(now).unwrap().decisions;
        decisions.iter().filter(|decision| matches!(decision, Decision::At(_))).count()
    };
    assert_eq!(spend(&mut process, BEGIN), 10);
    other.message.asks = vec![call(0)];
    let now = other.say(BEGIN + MICROS).unwrap().now;
    // Back by an hour: nothing is freed by that, and time goes on from there.
    let back = BEGIN - 3_600 * MICROS;
    assert_eq!(spend(&mut process, back), 8); // what the second before has refilled, less the other's
    assert_eq!(spend(&mut process, back + MICROS + 1), 10); // rounded down: a microsecond late
    assert_eq!(process.say(back + MICROS + 1).unwrap().now, now + MICROS + 1);
    // Forward by an hour: one burst, and nobody is declared dead for it.
    assert_eq!(spend(&mut process, BEGIN + 3_600 * MICROS), 10);
    assert_eq!(process.say(BEGIN + 3_600 * MICROS).unwrap().members, 2);
    process.message.asks = vec![call(0)];
    assert!(matches!(process.say(BEGIN + 3_601 * MICROS).unwrap().decisions[0], Decision::NoSlot(_)));
}

#[test]
fn a_state_that_was_lost_begins_empty_for_those_who_know_that_there_was_one() {
    let server = Server::start();
    let rate = Rate::new(600, 60 * SECOND).unwrap().with_burst(100).unwrap();
    let rates = [(Dimension::Requests, rate)];
    let mut process = Process::join(&server, "lost", "a", limits(&rates, 0), BEGIN);
    process.message.asks = vec![call(0); 50];
    process.say(BEGIN).unwrap();
    redis::cmd("FLUSHALL").exec(&mut server.connect()).unwrap();
    process.message.asks = vec![call(0)];
    assert_eq!(process.say(BEGIN + MICROS), None);
    process.message.epoch = 2;
    process.message.restores = vec![
        Left { dimension: Dimension::Requests, period: 60 * SECOND, ago: 3 * SECOND, amount: 300 },
        Left { dimension: Dimension::Requests, period: 60 * SECOND, ago: 2 * SECOND, amount: 285 },
        Left { dimension: Dimension::Requests, period: 60 * SECOND, ago: 100 * SECOND, amount: 600 },
    ];
    process.message.asks = vec![call(0)];
    let done = process.register(BEGIN + MICROS);
    assert!(done.created);
    // The bucket is empty: a tenth of a second a call.
    assert_eq!(done.decisions, [Decision::NotBefore(BEGIN + MICROS + MICROS / 10)]);
    // And the window knows of the 585 that had left.
    process.message.asks = vec![call(0); 30];
    let decisions = process.say(BEGIN + 11 * MICROS).unwrap().decisions;
    assert_eq!(decisions.iter().filter(|decision| matches!(decision, Decision::At(_))).count(), 15);
    assert_eq!(decisions[15], Decision::NotBefore(BEGIN + 58 * MICROS));
}

#[test]
fn a_cooldown_holds_for_all_and_ends() {
    let server = Server::start();
    let rate = Rate::new(6_000, 60 * SECOND).unwrap().with_burst(1_000).unwrap();
    let rates = [(Dimension::Requests, rate), (Dimension::Tokens, rate)];
    let mut a = Process::join(&server, "cool", "a", limits(&rates, 0), BEGIN);
    let mut b = Process::join(&server, "cool", "b", limits(&rates, 0), BEGIN);
    a.message.cooldowns = vec![Cooldown { dimension: None, period: None, lasts: 5 * SECOND, requested: 0 }];
    a.say(BEGIN).unwrap();
    b.message.asks = vec![call(1)];
    let done = b.say(BEGIN + MICROS).unwrap();
    assert_eq!((done.cooling, done.decisions[0]), (4 * MICROS, Decision::NotBefore(BEGIN + 5 * MICROS)));
    // A rate that was short holds back who uses it, and has a second's worth when that is over.
    let short = Cooldown { dimension: Some(Dimension::Tokens), period: None, lasts: 10 * SECOND, requested: 0 };
    a.message.cooldowns = vec![short];
    a.say(BEGIN + 5 * MICROS).unwrap();
    b.message.asks = vec![call(0), call(1)];
    let decisions = b.say(BEGIN + 6 * MICROS).unwrap().decisions;
    assert_eq!(decisions, [Decision::At(BEGIN + 6 * MICROS), Decision::NotBefore(BEGIN + 15 * MICROS)]);
    b.message.asks = vec![call(100), call(1)];
    let decisions = b.say(BEGIN + 15 * MICROS + 1).unwrap().decisions;
    assert!(matches!(decisions[..], [Decision::At(_), Decision::NotBefore(_)]), "{decisions:?}");
}

#[test]
fn everything_expires_and_what_is_not_ours_is_left_alone() {
    let server = Server::start();
    let rate = Rate::new(60, SECOND).unwrap();
    let mut process = Process::join(&server, "ttl", "a", limits(&[(Dimension::Requests, rate)], 3), BEGIN);
    for step in 0..20 {
        process.message.asks = vec![Ask { slot: false, ..call(0) }; 3];
        process.say(BEGIN + step * MICROS / 5).unwrap();
    }
    let mut connection = server.connect();
    let names: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
    assert_eq!(names, ["penstock:{ttl}"]);
    for name in names {
        let left: i64 = redis::cmd("PTTL").arg(&name).query(&mut connection).unwrap();
        assert!((1_000..400_000).contains(&left), "{name} {left}");
    }
    for (name, command) in [("wrong-1", "LPUSH"), ("wrong-2", "SADD")] {
        redis::cmd(command).arg(format!("penstock:{{{name}}}")).arg("x").exec(&mut connection).unwrap();
    }
    redis::cmd("HSET").arg("penstock:{wrong-3}").arg("some").arg("thing").exec(&mut connection).unwrap();
    redis::cmd("HSET").arg("penstock:{wrong-4}").arg("state").arg("something").exec(&mut connection).unwrap();
    process.message.register = true;
    for name in ["wrong-1", "wrong-2", "wrong-3", "wrong-4"] {
        let mut stranger = Process::unregistered(&server, name, process.message.clone());
        let error = stranger.run().unwrap_err().to_string();
        assert!(error.contains("WRONGTYPE") || error.contains("PENSTOCK"), "{error}");
    }
    let older: &[u8] = b"\x93\xaapenstock-2\x01\x02";
    redis::cmd("HSET").arg("penstock:{older}").arg("state").arg(older).exec(&mut connection).unwrap();
    let error = Process::unregistered(&server, "older", process.message.clone()).run().unwrap_err().to_string();
    assert!(error.contains("another version of Penstock (penstock-2;"), "{error}");
    for (name, field, value) in [("wrong-3", "some", "thing"), ("wrong-4", "state", "something")] {
        let theirs = redis::cmd("HGETALL").arg(format!("penstock:{{{name}}}")).query::<Vec<String>>(&mut connection);
        assert_eq!(theirs.unwrap(), [field, value]);
    }
}

/// Requests and tokens are found out, and nothing else is bounded.
fn to_be_found(rates: &[(Dimension, Rate)]) -> Limits {
    let found = Places::of(Dimension::Requests).and(Places::of(Dimension::Tokens));
    Limits { owned: Places::ALL.without(found), found, ..limits(rates, 0) }
}

fn tell(process: &mut Process, limits: Limits, now: i64) -> penstock::store::redis::wire::Done {
    (process.message.limits, process.message.fresh_limits) = (limits, true);
    let done = process.say(now).unwrap();
    process.message.fresh_limits = false;
    done
}

#[test]
fn limits_that_one_finds_out_are_everyones_and_no_newcomer_drops_them() {
    let server = Server::start();
    let slow = (Dimension::Requests, Rate::new(20, 60 * SECOND).unwrap().with_burst(2).unwrap());
    let rates = [
        (Dimension::Requests, Rate::new(600, 60 * SECOND + 7).unwrap()),
        (Dimension::Tokens, Rate::new(60_000, 60 * SECOND).unwrap().with_window(false)),
    ];
    let mut a = Process::join(&server, "found", "a", to_be_found(&[slow]), BEGIN);
    let begin = a.message.edition;
    // One finds them out.
    let told = Places::of(Dimension::Tokens);
    let both = to_be_found(&[]).found;
    let found = |rates: &[_]| Limits { owned: Places::default(), found: both, told, ..limits(rates, 0) };
    a.message.counted = vec![Counted { dimension: Dimension::Requests, period: 60 * SECOND + 7, used: 595 }];
    let done = tell(&mut a, found(&rates), BEGIN + 1);
    assert!(done.edition > begin);
    // Who comes later is told, whatever it begins with; so is who was there. And what the provider counts is charged.
    let owned = Places::ALL.without(both).without(Places::CONCURRENCY);
    let shared = Limits { owned, told, jitter: None, ..limits(&rates, 0) };
    let mut b = Process::unregistered(&server, "found", a.message.clone());
    (b.message.process, b.message.edition, b.message.limits) = ("b".to_owned(), 0, to_be_found(&[slow]));
    b.message.fresh_limits = true;
    let done = b.register(BEGIN + 2);
    assert_eq!(done.limits, Some(shared.clone()));
    b.message.fresh_limits = false;
    b.message.asks = vec![Ask { slot: false, ..call(0) }; 10];
    let done = b.say(BEGIN + 3).unwrap();
    assert_eq!(done.limits, None, "they are known");
    assert_eq!(done.decisions.iter().filter(|decision| **decision == Decision::At(BEGIN + 3)).count(), 5);

    // Both find out something at the same time: the first is right, and the second is told.
    let (more, most) = (Rate::new(1_200, 60 * SECOND + 7).unwrap(), Rate::new(2_400, 60 * SECOND + 7).unwrap());
    let [more, most] = [more, most].map(|rate| [(Dimension::Requests, rate), rates[1]]);
    let done = tell(&mut b, found(&more), BEGIN + 4);
    let shared = Limits { rates: more.to_vec(), ..shared };
    assert_eq!(done.limits, Some(shared.clone()));
    let learned = Learned { dimension: Dimension::Tokens, period: 60 * SECOND, amount: 1, burst: 1, speed: 1_000 };
    a.message.learned = vec![learned];
    let done = tell(&mut a, found(&most), BEGIN + 5);
    assert_eq!(done.limits, Some(shared));
    // Nor does it count what was learned of rates that are no more.
    a.message.asks = vec![Ask { cost: Cost { tokens: 500, ..Cost::default() }, slot: false, patience: Some(0) }];
    assert_eq!(a.say(BEGIN + 6).unwrap().decisions, [Decision::At(BEGIN + 6)]);
    a.message.learned = vec![learned];
    a.message.asks = vec![Ask { cost: Cost { tokens: 500, ..Cost::default() }, slot: false, patience: Some(0) }];
    assert_eq!(a.say(BEGIN + 7).unwrap().decisions, [Decision::Oversize(Dimension::Tokens, 1)]);

    // A limit that is given replaces what was found out of that dimension, and of no other.
    let given = Limits { owned: Places::of(Dimension::Tokens).and(Places::CONCURRENCY), ..limits(&[rates[1]], 4) };
    let done = tell(&mut a, given, BEGIN + 8);
    let Some(limits) = done.limits else { panic!("they are others") };
    assert_eq!((limits.rates, limits.concurrency, limits.told), (more.to_vec(), 4, Places::default()));
    assert!(limits.owned.has(Dimension::Tokens) && !limits.owned.has(Dimension::Requests));
}

#[test]
fn a_newcomer_with_the_same_limits_changes_nothing() {
    let server = Server::start();
    let rates = [(Dimension::Requests, Rate::new(600, 60 * SECOND).unwrap())];
    let mut a = Process::join(&server, "same", "a", limits(&rates, 3), BEGIN);
    let edition = a.message.edition;
    // The provider said less.
    let period = 60 * SECOND;
    a.message.learned = vec![Learned { dimension: Dimension::Requests, period, amount: 60, burst: 1, speed: 1_000 }];
    a.say(BEGIN + 1).unwrap();
    let mut b = Process::join(&server, "same", "b", limits(&rates, 3), BEGIN + 2);
    assert_eq!(b.message.edition, edition);
    b.message.asks = vec![Ask { slot: false, ..call(0) }; 3];
    let decisions = b.say(BEGIN + 3).unwrap().decisions;
    assert!(matches!(decisions[..2], [Decision::At(_), Decision::NotBefore(_)]), "{decisions:?}");
    // Another amount is another: the process that starts last decides.
    let more = [(Dimension::Requests, Rate::new(1_200, 60 * SECOND).unwrap())];
    let c = Process::join(&server, "same", "c", limits(&more, 3), BEGIN + 4);
    assert!(c.message.edition > edition);
    assert_eq!(a.say(BEGIN + 5).unwrap().limits.map(|limits| limits.rates), Some(more.to_vec()));
}

#[test]
fn what_left_while_the_store_was_away_is_counted_when_it_left_and_nobody_is_silenced_for_it() {
    let server = Server::start();
    let rates = [(Dimension::Requests, Rate::new(600, 60 * SECOND).unwrap())]; // ten a second, ten at once
    let asks = || vec![Ask { slot: false, ..call(0) }; 40];
    let leave = |process: &mut Process, now| {
        process.message.asks = asks();
        let decisions = process.say(now).unwrap().decisions;
        decisions.iter().filter(|decision| matches!(decision, Decision::At(_))).count()
    };
    let away = |name: &str, seconds: u64, each: u64| {
        let mut process = Process::join(&server, name, "a", limits(&rates, 0), BEGIN);
        assert_eq!(leave(&mut process, BEGIN), 10);
        let (now, requests) = (BEGIN + i64::try_from(seconds).unwrap() * MICROS, each);
        process.message.debits =
            (0..seconds).map(|ago| (ago * SECOND, Cost { requests, ..Cost::default() })).rev().collect();
        (process.message.epoch, process.message.away) = (2, now - BEGIN);
        process.register(now);
        process.message.away = 0;
        (process, now)
    };
    // Whoever kept to the rate goes on with it. The window lets go what has left it, piece by piece.
    for (name, seconds) in [("half", 30), ("five", 300)] {
        let (mut process, mut now) = away(name, seconds, 10);
        assert_eq!(leave(&mut process, now), 0, "it has left already");
        let mut left = 0;
        for _ in 0..600 {
            now += MICROS / 10;
            left += leave(&mut process, now);
        }
        assert!((590..=600).contains(&left), "{left} in the minute after {name}");
    }
    // Whoever did not owes it.
    let (mut process, now) = away("open", 10, 40);
    let owed = 400 - 100; // what left, less what flowed in
    assert_eq!(leave(&mut process, now + (owed / 10 - 1) * MICROS), 0);
    assert!(leave(&mut process, now + (owed / 10 + 1) * MICROS) > 0);
}
