//! A small generator of pseudo-random numbers, for jitter.

/// `SplitMix64` (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
///
/// Eight bytes of state, every seed is good, and the same seed gives the same numbers on every machine. Jitter needs
/// no more. Not for secrets. A process that forks must seed its child anew, or both back off in step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A generator that repeats itself for the same seed.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = self.state;
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both included, evenly; `low` if `high` is not above it.
    ///
    /// Taken by multiplication (Lemire, "Fast random integer generation in an interval", 2019) without its rejection
    /// step: the bias is below `(high - low) / 2^64`, nothing for a delay.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        let span = u128::from(high.saturating_sub(low)) + 1;
        let offset = (u128::from(self.next_u64()) * span) >> 64;
        // The offset is below the span, so this neither truncates nor overflows.
        low + u64::try_from(offset).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_numbers_are_those_of_the_reference() {
        // Published output of the reference implementation (splitmix64.c, Vigna) for this seed.
        let mut random = Random::new(1_234_567);
        let numbers: Vec<u64> = (0..3).map(|_| random.next_u64()).collect();
        assert_eq!(numbers, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn a_range_is_reached_from_end_to_end() {
        let mut random = Random::new(7);
        let mut seen = [0_u32; 4];
        for _ in 0..4_000 {
            seen[usize::try_from(random.between(10, 13) - 10).unwrap()] += 1;
        }
        assert!(seen.iter().all(|&n| (900..1_100).contains(&n)), "{seen:?}");
    }

    #[test]
    fn no_range_overflows() {
        let mut random = Random::new(7);
        assert_eq!(random.between(5, 5), 5);
        assert_eq!(random.between(5, 4), 5);
        assert_eq!(random.between(u64::MAX, u64::MAX), u64::MAX);
        assert!((0..100).any(|_| random.between(0, u64::MAX) > u64::MAX / 2));
    }
}
