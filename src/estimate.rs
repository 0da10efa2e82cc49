//! Tokens of a text, estimated without a tokenizer.
pub fn estimate_tokens(text: &str) -> u64 {
    text.len() as u64 / 4
}
