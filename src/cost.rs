//! What one call uses of each dimension that quotas count.

use std::fmt;

/// What a quota counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Dimension {
    /// Calls.
    Requests,
    /// Input and output tokens together.
    Tokens,
    /// Tokens sent.
    InputTokens,
    /// Tokens received.
    OutputTokens,
}

impl Dimension {
    /// Every dimension, in the order in which they are named everywhere.
    pub const ALL: [Self; 4] = [Self::Requests, Self::Tokens, Self::InputTokens, Self::OutputTokens];

    /// The name used in arguments and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
        }
    }

    /// The dimension of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dimension| dimension.name() == name)
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What one call uses in each dimension: an estimate before, the actual amounts after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cost {
    /// Calls, usually 1.
    pub requests: u64,
    /// Input and output tokens together.
    pub tokens: u64,
    /// Tokens sent.
    pub input_tokens: u64,
    /// Tokens received.
    pub output_tokens: u64,
}

impl Cost {
    /// The largest amount that one call may cost in any dimension. No provider's quota comes near it; it keeps every
    /// sum and product of the core far from the ends of its integers.
    pub const MAX: u64 = 1_000_000_000_000_000;

    /// The amount in one dimension.
    #[inline]
    pub const fn get(&self, dimension: Dimension) -> u64 {
        match dimension {
            Dimension::Requests => self.requests,
            Dimension::Tokens => self.tokens,
            Dimension::InputTokens => self.input_tokens,
            Dimension::OutputTokens => self.output_tokens,
        }
    }

    /// This cost with another amount in one dimension.
    #[must_use]
    pub const fn with(mut self, dimension: Dimension, amount: u64) -> Self {
        match dimension {
            Dimension::Requests => self.requests = amount,
            Dimension::Tokens => self.tokens = amount,
            Dimension::InputTokens => self.input_tokens = amount,
            Dimension::OutputTokens => self.output_tokens = amount,
        }
        self
    }

    fn zip(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            requests: f(self.requests, other.requests),
            tokens: f(self.tokens, other.tokens),
            input_tokens: f(self.input_tokens, other.input_tokens),
            output_tokens: f(self.output_tokens, other.output_tokens),
        }
    }

    /// The sum, dimension by dimension.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    /// What is left of this cost when `other` has been covered: never below zero.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.zip(other, u64::saturating_sub)
    }

    /// No amount above [`Cost::MAX`].
    #[must_use]
    pub fn clamped(self) -> Self {
        self.zip(Self::default(), |amount, _| amount.min(Self::MAX))
    }

    /// Whether nothing is charged at all.
    pub fn is_free(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for dimension in Dimension::ALL {
            let amount = self.get(dimension);
            if amount > 0 {
                write!(f, "{separator}{dimension}={amount}")?;
                separator = " ";
            }
        }
        if separator.is_empty() { f.write_str("free") } else { Ok(()) }
    }
}
