//! The tables of `docs/providers.md` are printed from the data that `penstock.providers` reads. This test fails when the
//! page is stale; `PENSTOCK_UPDATE_DOCS=1` writes them anew.

use std::fmt::Write as _;
use std::path::Path;

use penstock::clock::{Nanos, SECOND};
use penstock::cost::Dimension;
use penstock::provider::Provider;
use penstock::provider::profile::{CachedTokens, Enforcement, PROFILES, Profile, Reservation, Settlement};
use penstock::rate::Rate;

const MINUTE: Nanos = 60 * SECOND;
const DAY: Nanos = 86_400 * SECOND;

#[test]
fn the_page_is_what_the_limiters_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/providers.md");
    let written = std::fs::read_to_string(&path).unwrap();
    let page = fill(&fill(&written, "shapes", &shapes()), "counting", &counting());
    if std::env::var_os("PENSTOCK_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
        return;
    }
    assert!(
        written == page,
        "docs/providers.md is stale; `PENSTOCK_UPDATE_DOCS=1 cargo test --test providers_doc` writes it anew"
    );
}

/// The page with a table in its place.
fn fill(page: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {name}: printed by tests/providers_doc.rs -->\n"), format!("<!-- /{name} -->"));
    let (before, rest) = page.split_once(&begin).unwrap();
    let (_, after) = rest.split_once(&end).unwrap();
    format!("{before}{begin}{table}{end}{after}")
}

fn rate(rate: Option<Rate>) -> String {
    let rate = rate.unwrap();
    let window = if rate.window() { "" } else { ", no window" };
    format!("{rate}, burst {}{window}", rate.burst())
}

/// What limits become: 600 requests and 60,000 tokens a minute, 10,000 requests a day.
fn shapes() -> String {
    let mut table = String::from(
        "| provider | how it enforces | `rpm=600` | `tpm=60_000` | `rpd=10_000` |\n|---|---|---|---|---|\n",
    );
    for profile in known() {
        let enforcement = match profile.enforcement {
            Enforcement::ContinuousBucket => "bucket, refilled all the time",
            Enforcement::FixedWindow => "fixed windows",
            Enforcement::SlidingWindow => "rolling window",
            Enforcement::Adaptive => "moves with load and use",
            Enforcement::SharedPool => "a pool shared with others",
            Enforcement::Queue => "a queue",
            Enforcement::Undocumented => "not known",
        };
        writeln!(
            table,
            "| {} | {enforcement} | {} | {} | {} |",
            profile.title,
            rate(profile.per_minute(Dimension::Requests, 600)),
            rate(profile.per_minute(Dimension::Tokens, 60_000)),
            rate(profile.rate(Dimension::Requests, 10_000, DAY)),
        )
        .unwrap();
    }
    table
}

fn counting() -> String {
    let mut table = String::from(
        "| provider | a call takes | afterwards | cached input | what is known |\n|---|---|---|---|---|\n",
    );
    for profile in known() {
        let reservation = match profile.reservation {
            Reservation::LargerOfTextAndMax => "the larger of text and `max_tokens`".to_owned(),
            Reservation::TextPlusMax { unset: None } => "text + `max_tokens`".to_owned(),
            Reservation::TextPlusMax { unset: Some(unset) } => format!("text + `max_tokens` ({unset} if unset)"),
            Reservation::TextOnly => "the text".to_owned(),
            Reservation::Usage => "text + what such calls generate".to_owned(),
        };
        let settlement = match (profile.settlement, profile.reservation) {
            (Settlement::ToUsage, _) => "usage",
            (_, Reservation::LargerOfTextAndMax) => "usage, but no less than `max_tokens`",
            (_, Reservation::TextOnly) => "input used",
            (Settlement::AsUsed | Settlement::Undocumented, _) => "usage",
        };
        let cached = match profile.cached {
            CachedTokens::Count => "counts",
            CachedTokens::Free => "free",
            CachedTokens::FreeAsInput => "free as input",
        };
        writeln!(table, "| {} | {reservation} | {settlement} | {cached} | {} |", profile.title, profile.note).unwrap();
    }
    table
}

fn known() -> impl Iterator<Item = &'static Profile> {
    PROFILES.iter().filter(|profile| profile.provider != Provider::Unknown)
}

#[test]
fn every_rate_can_be() {
    for profile in PROFILES {
        for dimension in Dimension::ALL {
            for amount in [1, 2, 59, 60, 61, 1_000_000, 10_000_000_000] {
                for rate in [
                    profile.per_minute(dimension, amount),
                    profile.rate(dimension, amount, SECOND),
                    profile.rate(dimension, amount, MINUTE),
                    profile.rate(dimension, amount, DAY),
                ] {
                    let rate = rate.unwrap();
                    assert!(rate.amount() == amount && (1..=amount).contains(&rate.burst()));
                }
            }
            assert_eq!(profile.rate(dimension, 0, MINUTE), None);
            assert_eq!(profile.per_minute(dimension, u64::MAX), None);
        }
    }
}
