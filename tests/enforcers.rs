//! A day of virtual time against servers that count strictly: how much is refused, and how much of the quota is used.
//!
//! `docs/enforcers.md` shows the tables that are made here. To write them anew:
//! `PENSTOCK_UPDATE_DOCS=1 cargo test --test enforcers`.

#[path = "support/servers.rs"]
mod servers;
mod support;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;

use penstock::clock::{Nanos, SECOND};
use penstock::cost::{Cost, Dimension};
use penstock::rate::Rate;
use servers::Server;
use support::{CALL, Chance, HOUR, MILLISECOND, MINUTE, Saturated, config, rate, tokens};

const REQUESTS: u64 = 600;
const TOKENS: u64 = 400_000;
const DAY: Nanos = 24 * HOUR;
/// The spreads of the network's delay.
const SPREADS: [Nanos; 3] = [50 * MILLISECOND, 300 * MILLISECOND, SECOND];

/// What calls are like.
#[derive(Clone, Copy, PartialEq)]
enum Load {
    /// Requests are all that counts.
    Requests,
    /// Sizes from 200 to 12,000 tokens, log-normal; requests count too.
    HeavyTailed,
}

/// The worst that any of several servers made of a client.
struct Day {
    refusals: f64,
    utilisation: f64,
}

/// Lets a saturated client of these rates loose on all servers, for a day. The first hour is not measured: it begins
/// with a full bucket.
fn day(load: Load, rates: &[(Dimension, Rate)], spread: Nanos, servers: Vec<Server>) -> Day {
    let mut servers: Vec<_> = servers.into_iter().map(|server| server.measured_from(HOUR)).collect();
    let mut sizes = Chance::new(1);
    let mut network = Chance::new(2);
    let size = move || if load == Load::Requests { CALL } else { tokens(sizes.tokens()) };
    let mut wire: BinaryHeap<Reverse<(Nanos, u64, u64)>> = BinaryHeap::new();
    let mut sent = 0;
    let mut client = Saturated::new(config(rates, spread), size);
    let on_time = || 0;
    client.run(DAY, on_time, |at, cost: Cost| {
        while let Some(&Reverse((arrival, _, size))) = wire.peek()
            && arrival <= at
        {
            wire.pop();
            for server in &mut servers {
                server.arrive(arrival, &tokens(size));
            }
        }
        sent += 1;
        wire.push(Reverse((at + network.delay(spread), sent, cost.tokens)));
    });
    Day {
        refusals: servers.iter().map(Server::refusals).fold(0.0, f64::max),
        utilisation: servers.iter().map(|server| server.utilisation(DAY)).fold(f64::INFINITY, f64::min),
    }
}

/// One server of each kind, and the fixed window at several phases.
fn servers(dimension: Dimension, limit: u64) -> Vec<Server> {
    let mut servers = fixed(dimension, limit, MINUTE);
    servers.push(Server::bucket(dimension, limit, MINUTE));
    servers.push(Server::rolling(dimension, limit, MINUTE));
    servers
}

fn fixed(dimension: Dimension, limit: u64, period: Nanos) -> Vec<Server> {
    [0, 370, 999].map(|phase| Server::fixed(dimension, limit, period, period / 1_000 * phase)).into()
}

/// Against servers that count by the minute. Requests have room where tokens are short, and are judged too.
fn minute(load: Load, rate_of_scarcest: Rate, spread: Nanos) -> Day {
    match load {
        Load::Requests => {
            let rates = [(Dimension::Requests, rate_of_scarcest)];
            day(load, &rates, spread, servers(Dimension::Requests, REQUESTS))
        }
        Load::HeavyTailed => {
            let requests = rate(REQUESTS, MINUTE).with_window(rate_of_scarcest.window());
            let rates = [(Dimension::Requests, requests), (Dimension::Tokens, rate_of_scarcest)];
            let spare = day(load, &rates, spread, servers(Dimension::Requests, REQUESTS));
            let scarce = day(load, &rates, spread, servers(Dimension::Tokens, TOKENS));
            Day { refusals: spare.refusals.max(scarce.refusals), ..scarce }
        }
    }
}

/// Against servers that count requests by a part of the minute.
fn part(rate: Rate, spread: Nanos, period: Nanos) -> Day {
    let servers = fixed(Dimension::Requests, REQUESTS * period / MINUTE, period);
    day(Load::Requests, &[(Dimension::Requests, rate)], spread, servers)
}

fn seconds_worth(seconds: u64) -> Rate {
    rate(TOKENS, MINUTE).with_burst(TOKENS * seconds / 60).unwrap()
}

#[test]
fn a_day_against_servers_that_count_by_the_minute_brings_no_refusal() {
    for spread in SPREADS {
        let requests = minute(Load::Requests, rate(REQUESTS, MINUTE), spread);
        assert!(requests.refusals == 0.0 && requests.utilisation >= 0.98, "{} at {spread}", requests.utilisation);
        let bound = bound(MINUTE, spread);
        assert!(requests.utilisation >= bound - 0.000_1, "{} of {bound} at {spread}", requests.utilisation);

        let default = minute(Load::HeavyTailed, rate(TOKENS, MINUTE), spread);
        let wide = minute(Load::HeavyTailed, seconds_worth(4), spread);
        assert!(default.refusals == 0.0 && wide.refusals == 0.0);
        // What no order of arrival can avoid: the room that is too small for whoever is next. See the documentation.
        let bound = bound * (1.0 - bubble());
        assert!(default.utilisation >= bound - 0.007, "{} of {bound} at {spread}", default.utilisation);
        assert!(wide.utilisation >= bound - 0.001, "{} of {bound} at {spread}", wide.utilisation);
        if spread < SECOND {
            assert!(default.utilisation >= 0.98, "{} at {spread}", default.utilisation);
        }
    }
}

/// W/(W + J): what a guard over the window and the spread leaves.
#[allow(clippy::cast_precision_loss)] // for people
fn bound(window: Nanos, spread: Nanos) -> f64 {
    window as f64 / (window + spread) as f64
}

/// The mean share of a full window that lies idle because the next call is larger: half the mean size as seen by
/// someone who comes at a random time, E(s^2) / 2E(s).
#[allow(clippy::cast_precision_loss)] // a mean
fn bubble() -> f64 {
    let mut chance = Chance::new(1);
    let sizes: Vec<_> = (0..300_000).map(|_| chance.tokens() as f64).collect();
    let squares: f64 = sizes.iter().map(|size| size * size).sum();
    squares / (2.0 * sizes.iter().sum::<f64>()) / TOKENS as f64
}

/// Why there is a guard at all.
#[test]
fn a_bare_bucket_is_refused() {
    let bare = |amount| rate(amount, MINUTE).with_burst(amount).unwrap().with_window(false);
    assert!(minute(Load::Requests, bare(REQUESTS), 300 * MILLISECOND).refusals > 0.001);
    assert!(minute(Load::HeavyTailed, bare(TOKENS), 300 * MILLISECOND).refusals > 0.01);
}

/// The claims of the documentation about servers that count by 10 seconds or by one.
#[test]
fn parts_of_a_minute_are_kept_when_the_rate_says_so() {
    for spread in SPREADS {
        for seconds in [10, 1] {
            let period = seconds * SECOND;
            let shaped = part(rate(REQUESTS * seconds / 60, period), spread, period);
            assert!(shaped.refusals == 0.0, "{} of {seconds} s at {spread}", shaped.refusals);
            let bound = bound(period, spread);
            assert!(shaped.utilisation >= bound - 0.002, "{} of {bound} at {spread}", shaped.utilisation);
        }
    }
    // A rate by the minute does not keep them, and pacing alone is refused in proportion to the spread.
    assert!(part(rate(REQUESTS, MINUTE), SECOND, SECOND).refusals > 0.01);
    let paced = rate(REQUESTS, MINUTE).with_burst(1).unwrap().with_window(false);
    assert!(part(paced, SECOND, SECOND).refusals > 0.02);
}

/// Timers that are up to 15 ms late, one call at a time, 50 a second: no quota is lost.
#[test]
fn late_wakes_lose_no_quota() {
    let hour = |rate: Rate| {
        let mut late = Chance::new(5);
        let mut left = 0_u32;
        let rates = [(Dimension::Requests, rate)];
        Saturated::new(config(&rates, 0), || CALL).run(HOUR, || late.below(15 * MILLISECOND), |_, _| left += 1);
        f64::from(left) / (50.0 * 3_600.0)
    };
    let paced = rate(50, SECOND).with_burst(1).unwrap();
    let bare = hour(paced.with_window(false));
    assert!((0.999..=1.000_1).contains(&bare), "{bare}");
    let by_the_minute = hour(rate(3_000, MINUTE).with_burst(1).unwrap());
    assert!((0.999..=1.000_1).contains(&by_the_minute), "{by_the_minute}");
}

/// A process that stands still for up to `longest`, once in fifty wakes, for an hour, before a provider whose bucket holds
/// 1.5 seconds' worth. Gives what share was refused, and what share of the quota was used.
fn with_stalls(dimension: Dimension, told: Rate, longest: Nanos) -> (f64, f64) {
    let spread = 100 * MILLISECOND;
    let amount = told.amount();
    let holds = amount * 3 / 2 / 60;
    let mut server = Server::small_bucket(dimension, amount, MINUTE, holds).measured_from(MINUTE);
    let mut sizes = Chance::new(1);
    let size = move || if dimension == Dimension::Requests { CALL } else { tokens(sizes.tokens()) };
    let (mut stalls, mut network) = (Chance::new(3), Chance::new(2));
    let late = || if stalls.one_in(50) { stalls.below(longest) } else { stalls.below(5 * MILLISECOND) };
    let mut wire: BinaryHeap<Reverse<(Nanos, u64, u64)>> = BinaryHeap::new();
    let mut sent = 0;
    Saturated::new(config(&[(dimension, told)], spread), size).run(HOUR, late, |at, cost| {
        while let Some(&Reverse((arrival, _, size))) = wire.peek()
            && arrival <= at
        {
            wire.pop();
            server.arrive(arrival, &tokens(size));
        }
        sent += 1;
        wire.push(Reverse((at + network.delay(spread), sent, cost.tokens)));
    });
    (server.refusals(), server.utilisation(HOUR))
}

/// What was due while the process stood still leaves as a bucket saves it up, and not all at once.
#[test]
fn a_stall_ends_in_no_more_than_the_burst() {
    for (dimension, amount) in [(Dimension::Requests, 1_200), (Dimension::Tokens, 600_000)] {
        let burst = amount * 14 / 10 / 60; // what the provider's holds, less what flows in within the spread
        let shaped = rate(amount, MINUTE).with_burst(burst).unwrap().with_window(false);
        for told in [shaped, shaped.with_window(true), rate(amount, MINUTE)] {
            for longest in [SECOND, 10 * SECOND] {
                let (refused, used) = with_stalls(dimension, told, longest);
                assert!(refused == 0.0, "{refused} of {dimension} refused, {told:?}, up to {longest}");
                // Only what is longer than the burst is lost.
                assert!(used >= 0.98 || longest > SECOND, "{used} of {dimension} used, {told:?}");
            }
        }
    }
}

fn cell(day: &Day) -> String {
    let refused = if day.refusals == 0.0 { "0".to_owned() } else { format!("{:.2} %", day.refusals * 100.0) };
    format!(" {refused} / {:.1} % |", day.utilisation * 100.0)
}

fn minute_table() -> String {
    let requests = rate(REQUESTS, MINUTE);
    let bare = |amount| rate(amount, MINUTE).with_burst(amount).unwrap().with_window(false);
    let rows = [
        ("600 requests a minute", "`per_minute(600)`", Load::Requests, requests),
        ("", "the same, `burst=600, window=False`", Load::Requests, bare(REQUESTS)),
        ("400,000 tokens a minute, heavy-tailed", "`per_minute(400_000)`", Load::HeavyTailed, rate(TOKENS, MINUTE)),
        ("", "the same, `burst=26_666` (4 s)", Load::HeavyTailed, seconds_worth(4)),
        ("", "the same, `burst=400_000`", Load::HeavyTailed, seconds_worth(60)),
        ("", "the same, `burst=400_000, window=False`", Load::HeavyTailed, bare(TOKENS)),
    ];
    let mut table = String::from("| quota | rate | J = 50 ms | J = 300 ms | J = 1 s |\n|---|---|---|---|---|\n");
    for (quota, name, load, rate) in rows {
        let cells: String = SPREADS.map(|spread| cell(&minute(load, rate, spread))).concat();
        writeln!(table, "| {quota} | {name} |{cells}").unwrap();
    }
    let bounds = SPREADS.map(|spread| format!(" {:.1} % |", bound(MINUTE, spread) * 100.0)).concat();
    writeln!(table, "| the most there can be: W/(W + J) | |{bounds}").unwrap();
    table
}

fn part_table() -> String {
    let (per_minute, paced) = (rate(REQUESTS, MINUTE), |amount| rate(amount, MINUTE).with_burst(1).unwrap());
    let rows = [
        ("`per_minute(600)`", per_minute),
        ("`per_minute(600, burst=1)`", paced(REQUESTS)),
        ("`per_minute(600, burst=1, window=False)`", paced(REQUESTS).with_window(false)),
        ("`per_minute(588, burst=1, window=False)`", paced(588).with_window(false)),
        ("`Rate(100, per=10)`", rate(100, 10 * SECOND)),
        ("`Rate(10, per=1)`", rate(10, SECOND)),
    ];
    let mut table = String::from(
        "| rate | 10 s, J = 50 ms | 10 s, 300 ms | 10 s, 1 s | 1 s, J = 50 ms | 1 s, 300 ms | 1 s, 1 s |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for (name, rate) in rows {
        let of = |period| SPREADS.map(|spread| cell(&part(rate, spread, period))).concat();
        writeln!(table, "| {name} |{}{}", of(10 * SECOND), of(SECOND)).unwrap();
    }
    let bound = |period| SPREADS.map(|spread| format!(" {:.1} % |", bound(period, spread) * 100.0)).concat();
    writeln!(table, "| W/(W + J) |{}{}", bound(10 * SECOND), bound(SECOND)).unwrap();
    table
}

#[test]
fn the_documentation_shows_these_figures() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/enforcers.md");
    let mut page = std::fs::read_to_string(path).unwrap();
    for (name, table) in [("minute", minute_table()), ("part", part_table())] {
        let (begin, end) = (format!("<!-- {name} -->\n\n"), format!("\n<!-- /{name} -->"));
        let from = page.find(&begin).unwrap() + begin.len();
        let to = page.find(&end).unwrap();
        if std::env::var_os("PENSTOCK_UPDATE_DOCS").is_some() {
            page.replace_range(from..to, &table);
        }
        assert_eq!(page.get(from..from + table.len()), Some(&*table), "write {path} anew with PENSTOCK_UPDATE_DOCS=1");
    }
    if std::env::var_os("PENSTOCK_UPDATE_DOCS").is_some() {
        std::fs::write(path, page).unwrap();
    }
}
