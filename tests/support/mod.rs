//! What several tests need: repeatable chance, sizes as calls have them, and a driver of a gate in virtual time.

#![allow(dead_code)] // each test binary uses its own part

use std::sync::atomic::{AtomicU64, Ordering};

use penstock::clock::{Nanos, SECOND};
use penstock::cost::{Cost, Dimension};
use penstock::gate::{Admission, Config, Gate, Grant, Request};
use penstock::rate::Rate;
use penstock::store::shared::OnConflict;

pub const MILLISECOND: Nanos = SECOND / 1_000;
pub const MINUTE: Nanos = 60 * SECOND;
pub const HOUR: Nanos = 3_600 * SECOND;

/// A gate in the store that `PENSTOCK_TEST_STORE` names: `memory`, which is the default, or `shm`. What a store does not
/// keep (keys with limits of their own, in shared memory) stays in memory.
pub fn gate<T: Default>(config: Config, now: Nanos) -> Gate<T> {
    match std::env::var("PENSTOCK_TEST_STORE").as_deref() {
        Ok("shm") if config.per_key.is_none() => shared_gate(&fresh_name(), config, now),
        Ok("memory" | "shm") | Err(_) => Gate::new(config, now),
        Ok(other) => panic!("PENSTOCK_TEST_STORE must be memory or shm, not {other:?}"),
    }
}

/// A name of shared memory that nobody uses.
pub fn fresh_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Where shared memory of that name is.
pub fn shared_file(name: &str) -> std::path::PathBuf {
    penstock::store::shared::path(name).unwrap()
}

/// A gate over shared memory whose file has no name any more: it goes when the gate does.
fn shared_gate<T: Default>(name: &str, config: Config, now: Nanos) -> Gate<T> {
    let gate = Gate::over_shared_memory(name, config, OnConflict::Error, now).unwrap();
    std::fs::remove_file(shared_file(name)).unwrap();
    gate
}

/// Repeatable chance: splitmix64 (Steele, Lea and Flood, 2014).
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below `end`, which is above 0.
    pub fn below(&mut self, end: u64) -> u64 {
        u64::try_from((u128::from(self.next()) * u128::from(end)) >> 64).unwrap()
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// From 0 to 1, both left out.
    #[allow(clippy::cast_precision_loss)] // 53 bits
    pub fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// The tokens of a call as calls have them: log-normal from 200 to 12,000, a third of a decade either side of the
    /// median at one standard deviation, so that one call in a thousand is cut off at either end.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped
    pub fn tokens(&mut self) -> u64 {
        let (low, high) = (200.0_f64, 12_000.0_f64);
        let (middle, deviation) = ((low * high).sqrt().ln(), (high / low).ln() / 6.0);
        (middle + deviation * self.normal()).exp().clamp(low, high).round() as u64
    }

    /// A delay within a spread. The extremes come often, because they are what a guard has to stand.
    pub fn delay(&mut self, spread: Nanos) -> Nanos {
        match self.below(10) {
            0 => 0,
            1 => spread,
            _ => self.between(0, spread),
        }
    }
}

pub fn rate(amount: u64, period: Nanos) -> Rate {
    Rate::new(amount, period).unwrap()
}

/// One call, and nothing else.
pub const CALL: Cost = Cost { requests: 1, tokens: 0, input_tokens: 0, output_tokens: 0 };

/// One call of so many tokens.
pub fn tokens(tokens: u64) -> Cost {
    Cost { tokens, ..CALL }
}

pub fn config(rates: &[(Dimension, Rate)], jitter: Nanos) -> Config {
    Config { rates: rates.to_vec(), network_jitter: Some(jitter), ..Config::default() }
}

/// A gate at which somebody always waits, in virtual time.
pub struct Saturated<S> {
    gate: Gate<()>,
    sizes: S,
    now: Nanos,
}

impl<S: FnMut() -> Cost> Saturated<S> {
    pub fn new(config: Config, sizes: S) -> Self {
        Self { gate: gate(config, 0), sizes, now: 0 }
    }

    /// Runs until `end`, with every timer `late()` late, and tells each admission in the order of time.
    pub fn run(&mut self, end: Nanos, mut late: impl FnMut() -> Nanos, mut left: impl FnMut(Nanos, Cost)) {
        let mut settled = Vec::new();
        let mut tell = |gate: &mut Gate<()>, grant: Grant| {
            left(grant.charged_at, grant.cost);
            gate.release(grant.charged_at, &grant);
        };
        loop {
            while self.gate.waiting() < 8 {
                let request = Request { cost: (self.sizes)(), ..Request::default() };
                let admission = self.gate.admit(self.now, &request, &mut settled);
                if let Admission::Granted(grant) = admission {
                    tell(&mut self.gate, grant);
                }
            }
            for ((), outcome) in settled.drain(..) {
                tell(&mut self.gate, outcome.unwrap());
            }
            if self.gate.waiting() < 8 {
                continue;
            }
            self.now = self.gate.next_event().expect("who waits for a rate is told until when") + late();
            if self.now > end {
                return;
            }
            self.gate.pump(self.now, &mut settled);
            for ((), outcome) in settled.drain(..) {
                tell(&mut self.gate, outcome.unwrap());
            }
        }
    }
}
