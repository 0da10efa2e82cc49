//! What a call uses, by dimension.

/// What a quota counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dimension {
    /// Calls.
    Requests,
    /// Tokens, as the provider adds them up.
    Tokens,
    /// Tokens sent.
    InputTokens,
    /// Tokens generated.
    OutputTokens,
}

impl Dimension {
    /// All dimensions.
    pub const ALL: [Self; 4] = [Self::Requests, Self::Tokens, Self::InputTokens, Self::OutputTokens];

    /// The name used in code, docs and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
        }
    }
}

/// What one call uses in each dimension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Calls.
    pub requests: u64,
    /// Tokens, as the provider adds them up.
    pub tokens: u64,
    /// Tokens sent.
    pub input_tokens: u64,
    /// Tokens generated.
    pub output_tokens: u64,
}
