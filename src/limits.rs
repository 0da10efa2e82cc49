//! All limits of a limiter, as processes tell them to one another.

use crate::clock::Nanos;
use crate::cost::Dimension;
use crate::rate::Rate;

/// The limits of a limiter, and how they came to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The rates that all calls share.
    pub rates: Vec<(Dimension, Rate)>,
    /// How many calls may be under way at once; 0 for no bound.
    pub concurrency: u64,
    /// The spread of the network's delay; per rate [`Rate::default_jitter`] if not given.
    pub jitter: Option<Nanos>,
    /// What of it was given, and replaces what the others have.
    pub owned: Places,
    /// What of it was found out, and replaces only what it was found out of.
    pub found: Places,
    /// What of it the provider has named.
    pub told: Places,
}

impl Limits {
    /// Limits that were given, all of them.
    pub fn given(rates: Vec<(Dimension, Rate)>, concurrency: u64, jitter: Option<Nanos>) -> Self {
        Self { rates, concurrency, jitter, owned: Places::ALL, ..Self::default() }
    }

    /// The rates of one dimension.
    pub fn of(&self, dimension: Dimension) -> Vec<Rate> {
        self.rates.iter().filter(|(of, _)| *of == dimension).map(|&(_, rate)| rate).collect()
    }
}

/// Some of a limiter's dimensions, or its concurrency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places(u8);

impl Places {
    /// The concurrency.
    pub const CONCURRENCY: Self = Self(16);
    /// Every dimension, and the concurrency.
    pub const ALL: Self = Self(31);

    /// One dimension.
    pub fn of(dimension: Dimension) -> Self {
        Self(1 << dimension as u8)
    }

    /// These and those.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These, but not those.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether a dimension is among them.
    pub fn has(self, dimension: Dimension) -> bool {
        self.0 & Self::of(dimension).0 != 0
    }

    /// One bit for each: the dimensions in their order, then the concurrency.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// The other way round.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Dimension> for Places {
    fn from_iter<I: IntoIterator<Item = Dimension>>(dimensions: I) -> Self {
        dimensions.into_iter().fold(Self::default(), |places, dimension| places.and(Self::of(dimension)))
    }
}
