//! Speed of the token estimate: per kind of text, in bytes a second, and for a prompt of 2,000 characters.
//!
//! `cargo bench --bench estimate`

use std::fs;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use penstock::estimate::estimate_tokens;

fn main() {
    divan::main();
}

fn text(name: &str) -> String {
    let path = format!("{}/tests/data/estimate/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[divan::bench(args = ["prose_en", "code_python", "code_rust", "json_pretty", "json_compact", "base64", "log", "chinese", "japanese", "korean", "russian", "emoji"])]
fn megabyte(bencher: Bencher, name: &str) {
    let text = text(name);
    let text = text.repeat((1 << 20) / text.len() + 1);
    bencher.counter(BytesCount::of_str(&text)).bench(|| estimate_tokens(black_box(&text)));
}

#[divan::bench(args = ["prose_en", "code_python", "chinese"])]
fn prompt_of_2000_characters(bencher: Bencher, name: &str) {
    let prompt: String = text(name).chars().cycle().take(2000).collect();
    bencher.counter(BytesCount::of_str(&prompt)).bench(|| estimate_tokens(black_box(&prompt)));
}
