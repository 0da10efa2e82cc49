//! The token estimate against exact counts of a tokenizer, and what must hold for any text.

#[path = "support/cases.rs"]
mod cases;

use std::fs;
use std::path::{Path, PathBuf};

use cases::cases;
use penstock::estimate::{estimate_tokens, estimate_tokens_bytes};
use proptest::collection::vec;
use proptest::prelude::*;

/// What a text costs depends on what stands before it by less than 4 tokens (proved in `src/estimate.rs`), and each of
/// three estimates is rounded.
const SEAM: u64 = 5;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/estimate")
}

struct Text {
    name: String,
    content: String,
    o200k: u64,
    cl100k: u64,
    /// How far the estimate may be off `o200k`, in per cent.
    bound: f64,
}

impl Text {
    fn error(&self, count: u64) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "counts are small")]
        let (estimate, count) = (estimate_tokens(&self.content) as f64, count as f64);
        100.0 * (estimate / count - 1.0)
    }
}

fn texts() -> Vec<Text> {
    let counts = fs::read_to_string(folder().join("counts.tsv")).unwrap();
    let texts: Vec<Text> = counts
        .lines()
        .skip(1)
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let [name, o200k, cl100k, bound] = fields[..] else { panic!("counts.tsv: {line:?}") };
            Text {
                name: name.to_owned(),
                content: fs::read_to_string(folder().join(name)).unwrap(),
                o200k: o200k.parse().unwrap(),
                cl100k: cl100k.parse().unwrap(),
                bound: bound.parse().unwrap(),
            }
        })
        .collect();
    assert!(texts.len() > 20, "{} texts", texts.len());
    texts
}

#[test]
fn is_close_to_o200k_base() {
    let far: Vec<String> = texts()
        .iter()
        .filter(|text| text.error(text.o200k).abs() > text.bound)
        .map(|text| format!("{}: {:+.1} %, may be {} %", text.name, text.error(text.o200k), text.bound))
        .collect();
    assert!(far.is_empty(), "{far:#?}");
}

#[test]
fn is_close_to_cl100k_base_on_english_code_and_json() {
    let prefixes = ["prose_en", "chat_en", "code_", "json_", "markdown"];
    let texts: Vec<Text> =
        texts().into_iter().filter(|text| prefixes.iter().any(|prefix| text.name.starts_with(prefix))).collect();
    assert_eq!(texts.len(), 10);
    for text in texts {
        assert!(text.error(text.cl100k).abs() <= 15.0, "{}: {:+.1} %", text.name, text.error(text.cl100k));
    }
}

/// A text cut in two costs what it did, as when a framework makes chunks of it.
#[test]
fn halves_cost_what_the_whole_does() {
    for text in texts() {
        let content = &text.content;
        let middle = (0..=content.len() / 2).rev().find(|&index| content.is_char_boundary(index)).unwrap();
        let (head, tail) = content.split_at(middle);
        let halves = estimate_tokens(head) + estimate_tokens(tail);
        assert!(halves.abs_diff(estimate_tokens(content)) <= SEAM, "{}", text.name);
    }
}

#[test]
fn empty_is_nothing_and_little_is_something() {
    assert_eq!(estimate_tokens(""), 0);
    assert_eq!(estimate_tokens_bytes(b""), 0);
    for text in ["a", " ", "\n", "\0", "é", "你", "한", "ا", "ก", "🙂", "\u{10ffff}"] {
        let estimate = estimate_tokens(text);
        assert!((1..=4).contains(&estimate), "{text:?}: {estimate}");
    }
}

#[test]
fn long_rows_stay_in_proportion() {
    let row = |unit: &str, times: usize| estimate_tokens(&unit.repeat(times));
    // Digits go in threes; space and rules are cheap; the exact counts are 3334, 126 or so, 157 and 1250.
    assert!((3300..=3400).contains(&row("0", 10_000)));
    assert!(row(" ", 10_000) <= 200);
    assert!(row("-", 10_000) <= 400);
    assert!(row("a", 10_000) <= 5000);
    // A row of names costs the same again when it is twice as long.
    assert!((2 * row("snake_case ", 1000)).abs_diff(row("snake_case ", 2000)) <= SEAM);
}

fn mixed() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-z]{1,12}",
        "[A-Z][a-z]{0,8}",
        "[A-Z]{1,6}",
        "[0-9]{1,7}",
        "[ \t\r\n]{1,6}",
        "[!-/:-@\\[-`{-~]{1,5}",
        "[à-ÿ]{1,3}",
        "[а-я]{1,9}",
        "[ء-ي]{1,7}",
        "[ก-ู]{1,9}",
        "[अ-ह]{1,6}",
        "[ぁ-ん]{1,6}",
        "[一-龥]{1,8}",
        "[가-힣]{1,5}",
        "[😀-🙏]{1,3}",
        any::<String>(),
    ];
    vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn any_bytes_have_an_estimate(bytes in vec(any::<u8>(), 0..400)) {
        let estimate = estimate_tokens_bytes(&bytes);
        prop_assert_eq!(estimate == 0, bytes.is_empty());
        // No character costs more than 4 tokens, and none has less than one byte.
        prop_assert!(estimate <= 4 * bytes.len() as u64);
    }

    #[test]
    fn a_text_costs_about_its_parts(a in mixed(), b in mixed()) {
        let (whole, parts) = (estimate_tokens(&[a.as_str(), &b].concat()), estimate_tokens(&a) + estimate_tokens(&b));
        prop_assert!(whole.abs_diff(parts) <= SEAM, "{} against {}", whole, parts);
    }

    #[test]
    fn more_text_never_costs_less(a in mixed(), b in mixed()) {
        let whole = estimate_tokens(&[a.as_str(), &b].concat());
        prop_assert!(whole >= estimate_tokens(&a));
    }

    #[test]
    fn text_and_its_bytes_cost_the_same(text in mixed()) {
        prop_assert_eq!(estimate_tokens(&text), estimate_tokens_bytes(text.as_bytes()));
    }
}
