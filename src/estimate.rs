//! Tokens of a text, estimated without a tokenizer.
