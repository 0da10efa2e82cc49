//! What the core takes by itself, in virtual time. `cargo bench --bench core`.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use penstock::clock::{Nanos, SECOND};
use penstock::cost::{Cost, Dimension};
use penstock::gate::{Admission, Config, Gate, Grant, Outcome, Request};
use penstock::keys::PerKey;
use penstock::queue::Queue;
use penstock::rate::Rate;

fn main() {
    divan::main();
}

const MINUTE: Nanos = 60 * SECOND;
const COST: Cost = Cost { requests: 1, tokens: 1_000, input_tokens: 800, output_tokens: 0 };
const DIMENSIONS: [Dimension; 3] = [Dimension::Requests, Dimension::Tokens, Dimension::InputTokens];

/// Rates so high that a call every microsecond has room.
fn roomy(dimensions: usize, window: bool) -> Config {
    let rate = Rate::new(Rate::MAX_AMOUNT, MINUTE).unwrap().with_window(window);
    Config { rates: DIMENSIONS[..dimensions].iter().map(|d| (*d, rate)).collect(), ..Config::default() }
}

fn admit(gate: &mut Gate<()>, now: Nanos, request: &Request<'_>) -> Grant {
    match gate.admit(now, request, &mut Vec::new()) {
        Admission::Granted(grant) => grant,
        other => panic!("there is room: {other:?}"),
    }
}

fn admit_and_release(bencher: Bencher, config: Config, key: Option<&str>) {
    let mut gate = Gate::new(config, 0);
    let request = Request { cost: COST, key, ..Request::default() };
    let mut now = 0;
    bencher.bench_local(|| {
        now += 1_000;
        let grant = admit(&mut gate, now, black_box(&request));
        gate.release(now, &grant);
    });
}

#[divan::bench(args = [1, 2, 3], sample_size = 10_000)]
fn admit_release(bencher: Bencher, dimensions: usize) {
    admit_and_release(bencher, roomy(dimensions, true), None);
}

#[divan::bench(args = [1, 2, 3], sample_size = 10_000)]
fn admit_release_no_window(bencher: Bencher, dimensions: usize) {
    admit_and_release(bencher, roomy(dimensions, false), None);
}

/// A key that has limits of its own, of one dimension, besides three that are shared.
#[divan::bench(sample_size = 10_000)]
fn admit_release_with_key(bencher: Bencher) {
    let per_key = PerKey { rates: roomy(1, true).rates, concurrency: Some(8) };
    admit_and_release(bencher, Config { per_key: Some(per_key), ..roomy(3, true) }, Some("tenant"));
}

/// An admission, its settlement with half of its tokens, and its release.
#[divan::bench(sample_size = 10_000)]
fn admit_settle_release(bencher: Bencher) {
    let mut gate: Gate<()> = Gate::new(roomy(3, true), 0);
    let request = Request { cost: COST, ..Request::default() };
    let actual = Cost { tokens: 500, input_tokens: 400, ..COST };
    let mut now = 0;
    bencher.bench_local(|| {
        now += 1_000;
        let mut grant = admit(&mut gate, now, &request);
        gate.settle(now, &mut grant, black_box(&actual));
        gate.release(now, &grant);
    });
}

const WAITERS: usize = 100_000;

/// A hundred thousand calls queue up, and leave one timer after the other. The time is that of all together.
#[divan::bench(args = [1, 1_000], sample_count = 10)]
fn hundred_thousand_waiters(bencher: Bencher, keys: usize) {
    let names: Vec<_> = (0..keys).map(|key| format!("key {key}")).collect();
    let rates = vec![
        (Dimension::Requests, Rate::new(60_000, MINUTE).unwrap()),
        (Dimension::Tokens, Rate::new(60_000_000, MINUTE).unwrap()),
    ];
    bencher.counter(ItemsCount::new(WAITERS)).bench_local(|| {
        let mut gate: Gate<u64> = Gate::new(Config { rates: rates.clone(), ..Config::default() }, 0);
        let mut settled: Vec<(u64, Outcome)> = Vec::new();
        for name in names.iter().cycle().take(WAITERS) {
            let request = Request { cost: COST, key: Some(name), ..Request::default() };
            let _ = black_box(gate.admit(0, &request, &mut settled));
        }
        while let Some(event) = gate.next_event() {
            gate.pump(event, &mut settled);
            for (_, outcome) in settled.drain(..) {
                gate.release(event, &outcome.unwrap());
            }
        }
        gate
    });
}

/// One turn among a thousand keys that share by deficit round robin, with sizes from 1 to 4,000.
#[divan::bench(sample_size = 10_000)]
fn next_of_a_thousand_keys(bencher: Bencher) {
    let weight = |cost: &Cost| cost.tokens;
    let mut queue: Queue<u64> = Queue::default();
    let size = |i: u64| Cost { tokens: 1 + i * 7_919 % 4_000, ..COST };
    for i in 0..10_000 {
        queue.push(size(i), 0, 0, Some(u32::try_from(i % 1_000).unwrap()), i);
    }
    let mut i = 0;
    bencher.bench_local(|| {
        i += 1;
        let next = queue.next(weight).unwrap();
        queue.serve(next.ticket, weight);
        queue.push(size(i), 0, 0, next.key, i)
    });
}
