//! Any bytes: mutated samples never make the reader panic, state a wait outside [0, max] or take long.
//!
//! A seeded generator mutates the recorded samples with knowledge of their structure: values and names are exchanged
//! between samples, numbers and units replaced by hostile ones, JSON nested, cut and spliced, bytes flipped. The run is
//! the same every time; `PENSTOCK_FUZZ_ITERATIONS` (default one million) and `PENSTOCK_FUZZ_SEED` change it, and
//! `make fuzz` runs it longer. A failure prints the iteration, whose seed reproduces it alone.

mod corpus;
#[path = "support/processor.rs"]
mod processor;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use corpus::Sample;
use penstock::provider::{Call, Headers, Kind, Provider, Reader, Reading, Usage};
use processor::processor_time;

const DEFAULT_ITERATIONS: u64 = 1_000_000;
/// The median and the 99th percentile are printed; this bound only catches an algorithm that went wrong, not a busy
/// machine. The goal is 50 microseconds.
const LOOSE_P99: Duration = Duration::from_millis(1);

/// Values that parsers get wrong.
const HOSTILE: &[&str] = &[
    "",
    " ",
    "-1",
    "-0",
    "0",
    "+5",
    "NaN",
    "inf",
    "-inf",
    "1e308",
    "1e-9",
    "0x10",
    "1_000",
    "1,000",
    "٣",
    ".",
    "..",
    "1.",
    ".5",
    "00000000000000000000000000000000001",
    "18446744073709551615",
    "18446744073709551616",
    "170141183460469231731687303715884105728",
    "340282366920938463463374607431768211456",
    "99999999999999999999999999999999999999999999",
    "999999999",
    "1000000000",
    "999999999999",
    "1000000000000",
    "253402300799000",
    "253402300800000",
    "0.0000000001",
    "0.9999999999999999999999",
    "1h1h1h1h",
    "1d",
    "106751d",
    "18446744073709551615h",
    "99999999999999999999h",
    "1ns",
    "1µs",
    "1\u{3bc}s",
    "5x",
    "ms",
    "1m-1s",
    "2025-02-30T00:00:00Z",
    "2025-08-21T12:40:59Z",
    "2025-08-21T12:40:59+99:99",
    "9999-12-31T23:59:59Z",
    "-009999-01-01T00:00:00Z",
    "0000-01-01 00:00:00 UTC",
    "Sun, 27 Sep 2026 12:30:00 GMT",
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Sunday, 06-Nov-94 08:49:37 GMT",
    "Sun Nov  6 08:49:37 1994",
    "true",
    "yes",
    "Tokens",
    "null",
    "[]",
    "{}",
    "\"\"",
    "{\"error\":{\"code\":429}}",
    "\u{0}",
    "\u{feff}",
    "\u{1f600}",
];

/// Pieces of messages, to be put together in any order.
const PHRASES: &[&str] = &[
    "Limit ",
    "Used ",
    "Requested ",
    "(TPM): ",
    "(RPD)",
    "Please try again in ",
    "Please retry in ",
    "retry after ",
    "limit of ",
    "limit: ",
    "limited to ",
    "tokens per ",
    "/ minute",
    "/ month",
    "per day",
    "Request too large",
    "resets at: ",
    "too many tokens",
    ", ",
    ". ",
    "\\n",
    "PerDay",
    "limit limit limit ",
    "((((",
    "per per per ",
];

/// `SplitMix64`: small, seeded, good enough to pick mutations.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// One answer, ready to be read.
struct Input {
    provider: Provider,
    status: u16,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
    now: f64,
}

impl Input {
    fn mutated(samples: &[Sample], random: &mut Random) -> Self {
        let sample = random.pick(samples);
        let mut input = Self {
            provider: sample.provider,
            status: sample.status,
            headers: sample.headers.iter().map(|(n, v)| (n.clone().into_bytes(), v.clone().into_bytes())).collect(),
            body: sample.body.clone(),
            now: sample.now,
        };
        if random.one_in(4) {
            input.provider = *random.pick(&Provider::ALL);
        }
        if random.one_in(8) {
            input.status = *random.pick(&[
                0,
                1,
                99,
                200,
                204,
                302,
                400,
                402,
                408,
                413,
                424,
                429,
                500,
                503,
                529,
                599,
                999,
                u16::MAX,
            ]);
        }
        if random.one_in(8) {
            input.now = *random.pick(&[
                f64::NAN,
                f64::INFINITY,
                f64::NEG_INFINITY,
                -1.0,
                0.0,
                -0.0,
                1e-300,
                1e18,
                1e300,
                f64::MAX,
            ]);
        }
        for _ in 0..=random.below(4) {
            input.mutate_headers(samples, random);
            input.mutate_body(samples, random);
        }
        input
    }

    fn mutate_headers(&mut self, samples: &[Sample], random: &mut Random) {
        let other = random.pick(samples);
        match random.below(7) {
            0 if !other.headers.is_empty() => {
                let (name, value) = random.pick(&other.headers).clone();
                self.headers.push((name.into_bytes(), value.into_bytes()));
            }
            1 if !other.headers.is_empty() => {
                let (name, _) = random.pick(&other.headers).clone();
                self.headers.push((name.into_bytes(), random.pick(HOSTILE).as_bytes().to_vec()));
            }
            2 if !self.headers.is_empty() => {
                let at = random.below(self.headers.len());
                self.headers[at].1 = random.pick(HOSTILE).as_bytes().to_vec();
            }
            3 if !self.headers.is_empty() => {
                let at = random.below(self.headers.len());
                let header = &mut self.headers[at];
                mangle(if random.one_in(3) { &mut header.0 } else { &mut header.1 }, random);
            }
            4 if !self.headers.is_empty() => {
                let at = random.below(self.headers.len());
                self.headers.swap_remove(at);
            }
            5 => {
                let name = *random.pick(&[
                    "retry-after",
                    "retry-after-ms",
                    "x-amz-retry-after",
                    "reset_at",
                    "date",
                    "x-should-retry",
                ]);
                self.headers.push((name.into(), random.pick(HOSTILE).as_bytes().to_vec()));
            }
            6 if random.one_in(2_000) => {
                let name = vec![b'x'; random.below(70_000)];
                self.headers
                    .extend((0..random.below(2_000)).map(|_| (b"x-ratelimit-limit-requests".to_vec(), b"1".to_vec())));
                self.headers.push((name, vec![b'9'; random.below(70_000)]));
            }
            _ => {}
        }
    }

    fn mutate_body(&mut self, samples: &[Sample], random: &mut Random) {
        match random.below(9) {
            0 | 1 => self.replace_number(random),
            2 => self.replace_string(random),
            3 => mangle(&mut self.body, random),
            4 => {
                let other = &random.pick(samples).body;
                let cut = random.below(self.body.len());
                self.body.truncate(cut);
                self.body.extend_from_slice(&other[random.below(other.len())..]);
            }
            5 => {
                let wrapped = match random.below(5) {
                    0 => [b"[".as_slice(), &self.body, b"]"].concat(),
                    1 => [b"{\"error\":".as_slice(), &self.body, b"}"].concat(),
                    2 => [b"event: error\ndata: ".as_slice(), &self.body, b"\n\n"].concat(),
                    3 => [b"{\"type\":\"response.failed\",\"response\":".as_slice(), &self.body, b"}"].concat(),
                    _ => [b"data: {}\n\ndata: ".as_slice(), &self.body].concat(),
                };
                self.body = wrapped;
            }
            6 => self.body = random.pick(samples).body.clone(),
            7 if random.one_in(500) => {
                let brackets = *random.pick(&[b'[', b'{', b'"', b' ', 0xff]);
                let at = random.below(self.body.len());
                self.body.splice(at..at, vec![brackets; random.below(100_000)]);
            }
            _ => {}
        }
        // Mutations that only ever lengthen a body would make the run long, not better.
        if self.body.len() > 8 * 1024 && !random.one_in(50) {
            self.body.truncate(8 * 1024);
        }
    }

    /// Puts something hostile where a number stands.
    fn replace_number(&mut self, random: &mut Random) {
        let is_start =
            |at: &usize| self.body[*at].is_ascii_digit() && (*at == 0 || !self.body[*at - 1].is_ascii_digit());
        let starts: Vec<usize> = (0..self.body.len()).filter(is_start).collect();
        if !starts.is_empty() {
            let start = *random.pick(&starts);
            let length = self.body[start..].iter().take_while(|b| b.is_ascii_digit()).count();
            self.body.splice(start..start + length, random.pick(HOSTILE).bytes());
        }
    }

    /// Puts words of a message into a string.
    fn replace_string(&mut self, random: &mut Random) {
        let quotes: Vec<usize> = (0..self.body.len()).filter(|at| self.body[*at] == b'"').collect();
        if !quotes.is_empty() {
            let mut text = Vec::new();
            for _ in 0..random.below(8) {
                text.extend_from_slice(random.pick(PHRASES).as_bytes());
                if random.one_in(2) {
                    text.extend_from_slice(random.pick(HOSTILE).replace('"', "").as_bytes());
                }
            }
            let at = random.pick(&quotes) + 1;
            self.body.splice(at..at, text);
        }
    }

    fn read(&self, reader: Reader) -> Reading {
        let pairs: Vec<(&[u8], &[u8])> = self.headers.iter().map(|(n, v)| (n.as_slice(), v.as_slice())).collect();
        reader.read(self.status, Headers::new(&pairs), &self.body, self.now)
    }
}

/// Flips, removes, repeats or inserts bytes.
fn mangle(bytes: &mut Vec<u8>, random: &mut Random) {
    if bytes.is_empty() {
        return;
    }
    let at = random.below(bytes.len());
    match random.below(5) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => {
            bytes.remove(at);
        }
        2 => bytes.truncate(at),
        3 => {
            let end = (at + random.below(16)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        _ => bytes.insert(at, random.next().to_le_bytes()[0]),
    }
}

/// What must hold of every reading.
fn check(reading: &Reading, reader: Reader) {
    let verdict = &reading.verdict;
    assert!(verdict.wait.is_none_or(|wait| wait <= reader.max_wait), "wait {:?}", verdict.wait);
    assert!(verdict.resets_at.is_none_or(|at| at.is_finite() && at >= 0.0), "resets_at {:?}", verdict.resets_at);
    let is_final = matches!(verdict.kind, Kind::Ok | Kind::Oversize | Kind::QuotaExhausted);
    assert!(!(is_final && verdict.retryable), "{:?} is retryable", verdict.kind);
    assert!(verdict.kind != Kind::Oversize || verdict.wait.is_none(), "an oversize request waits");
    assert!(verdict.detail.as_ref().is_none_or(|detail| detail.len() <= 500), "detail is long");
    assert!(reading.limits.len() <= 600, "{} limits", reading.limits.len());
    for limit in &reading.limits {
        assert!(limit.limit != Some(0), "a limit of zero was learned: {limit:?}");
        assert!(limit.window.is_none_or(|window| !window.is_zero()), "a window of zero was learned: {limit:?}");
    }
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number is needed")))
}

#[test]
fn mutated_answers_are_read_without_harm() {
    let iterations = from_environment("PENSTOCK_FUZZ_ITERATIONS", DEFAULT_ITERATIONS);
    let seed = from_environment("PENSTOCK_FUZZ_SEED", 0);
    let samples = Sample::all();
    let maxima = [Duration::ZERO, Duration::from_secs(60), Reader::MAX_WAIT, Duration::MAX];
    let mut times = hdrhistogram::Histogram::<u64>::new_with_bounds(1, 10_000_000_000, 3).unwrap();
    let mut kinds = [0_u64; Kind::ALL.len()];
    for iteration in 0..iterations {
        let mut random = Random(seed.wrapping_add(iteration).wrapping_mul(0xd134_2543_de82_ef95));
        let input = Input::mutated(&samples, &mut random);
        let reader = Reader { max_wait: *random.pick(&maxima), ..Reader::new(input.provider) };
        let result = catch_unwind(AssertUnwindSafe(|| {
            let start = processor_time();
            let reading = input.read(reader);
            let time = processor_time().saturating_sub(start);
            check(&reading, reader);
            // Request and usage bodies come from strangers too.
            if iteration % 8 == 0 {
                Usage::read(&input.body).map(|usage| usage.cost(input.provider, reading.verdict.code.as_deref()));
                let call = Call::read("/v1/models/x:y", &input.body, &|text| text.len() as u64);
                assert!(call.cost(input.provider, None).requests == 1);
            }
            (reading.verdict.kind, time)
        }));
        let Ok((kind, time)) = result else {
            panic!("PENSTOCK_FUZZ_SEED={} PENSTOCK_FUZZ_ITERATIONS=1 reproduces this", seed.wrapping_add(iteration));
        };
        kinds[Kind::ALL.iter().position(|known| *known == kind).unwrap()] += 1;
        times.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
    let p99 = Duration::from_nanos(times.value_at_quantile(0.99));
    println!(
        "{iterations} answers: median {:?}, p99 {p99:?}, p99.9 {:?}, max {:?}; {}",
        Duration::from_nanos(times.value_at_quantile(0.5)),
        Duration::from_nanos(times.value_at_quantile(0.999)),
        Duration::from_nanos(times.max()),
        Kind::ALL.iter().zip(kinds).map(|(kind, n)| format!("{} {n}", kind.name())).collect::<Vec<_>>().join(", "),
    );
    if iterations >= 100_000 {
        assert!(p99 < LOOSE_P99, "p99 {p99:?}");
        // Mutations that turned all answers into one kind would test little.
        assert!(kinds.iter().all(|n| *n > iterations / 1_000), "{kinds:?}");
    }
}

#[test]
fn mutations_are_the_same_every_time() {
    let samples = Sample::all();
    let read = |iteration| {
        let input = Input::mutated(&samples, &mut Random(iteration));
        let reading = input.read(Reader::new(input.provider));
        // NaN clocks never make a reading differ from itself.
        format!("{reading:?}")
    };
    for iteration in 0..1_000 {
        assert_eq!(read(iteration), read(iteration));
    }
}
