//! `docs/verdicts.md` says what the code does: it is printed from the tables that the code reads, and from what the code
//! makes of every sample. This test fails when the page is stale; `PENSTOCK_UPDATE_DOCS=1` writes it anew.

mod corpus;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use corpus::Sample;
use penstock::provider::limits::COUNTERS;
use penstock::provider::profile::{CachedTokens, Enforcement, PROFILES, Profile, Reservation, Settlement};
use penstock::provider::rules::{CODES, DAILY_QUOTA_IDS, PROSE, Rule, STATUSES};
use penstock::provider::{Kind, LONGEST_GOOGLE_DELAY, Provider, Reader};

#[test]
fn the_page_is_what_the_code_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/verdicts.md");
    let page = page();
    if std::env::var_os("PENSTOCK_UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/verdicts.md is stale; `PENSTOCK_UPDATE_DOCS=1 cargo test --test verdicts_doc` writes it anew"
    );
}

fn page() -> String {
    let mut page = String::new();
    page.push_str(INTRODUCTION);
    kinds(&mut page);
    statuses(&mut page);
    rules(&mut page, "## Codes", CODES_TEXT, "code", CODES);
    rules(&mut page, "## Words", WORDS_TEXT, "words", PROSE);
    waits(&mut page);
    samples(&mut page);
    profiles(&mut page);
    counters(&mut page);
    page
}

const INTRODUCTION: &str = "<!-- Printed by tests/verdicts_doc.rs from the tables in src/provider/. Do not edit. -->\n\n\
    # Verdicts\n\n\
    What a provider's answer means, and whether trying again can help. Codes are read before words, and words before the \
    status; `x-should-retry` from the server is obeyed, but a spent quota and a request that is too large are never \
    retried.\n";

const CODES_TEXT: &str = "Looked for in `error.code`, `error.type`, `error.status`, `error.details.error_code`, `__type` and \
    `x-amzn-errortype`, without regard to case; also in the JSON that proxies wrap into their messages, and in the error \
    events of streams that began with a 200. If several are known, the one that is highest in the list of kinds below \
    decides: quota_exhausted, oversize, overloaded, throttled, transient, fatal.";

const WORDS_TEXT: &str = "For what no code tells.";

fn kinds(page: &mut String) {
    page.push_str("\n## Kinds\n\n| kind | meaning | retryable |\n|---|---|---|\n");
    for kind in Kind::ALL {
        let meaning = match kind {
            Kind::Ok => "served",
            Kind::Throttled => "a limit is used up for now; there is room again after the wait",
            Kind::Overloaded => "the provider is short of capacity, or the ramp was too steep: send less",
            Kind::Transient => "a failure that says nothing about load",
            Kind::Oversize => "larger than the limit itself; no wait helps",
            Kind::QuotaExhausted => "the account is empty, or a quota is spent for so long that waiting is no answer",
            Kind::Fatal => "the request is wrong",
        };
        line(page, &[kind.name(), meaning, if kind.is_retryable() { "yes" } else { "no" }]);
    }
}

fn statuses(page: &mut String) {
    page.push_str("\n## Statuses\n\nThe first row that matches.\n\n| status | kind | note |\n|---|---|---|\n");
    for (from, to, kind, note) in STATUSES {
        let status = if from == to { from.to_string() } else { format!("{from}-{to}") };
        line(page, &[&status, kind.name(), note]);
    }
}

fn rules(page: &mut String, title: &str, text: &str, column: &str, rules: &[Rule]) {
    write!(page, "\n{title}\n\n{text}\n\n| {column} | provider | kind | note |\n|---|---|---|---|\n").unwrap();
    for rule in rules {
        let provider = rule.provider.map_or("any", Provider::name);
        line(page, &[&format!("`{}`", rule.signal), provider, rule.kind.name(), rule.note]);
    }
}

fn waits(page: &mut String) {
    let daily = DAILY_QUOTA_IDS.iter().map(|part| format!("`{part}`")).collect::<Vec<_>>().join(" or ");
    write!(
        page,
        "\n## Waits and special cases\n\n\
         - `Limit`, `Used` and `Requested` in a message (OpenAI, Groq): the wait is `(used + requested - limit) x window / \
         limit`; `requested > limit` is oversize. The longest of this, the wait in words and `RetryInfo` counts; a \
         `retry-after` in whole seconds is the same, rounded up.\n\
         - `x-ratelimit-reset-requests` and `-tokens` are times to a full bucket, never waited for. The window is solved from \
         them: `reset x limit / (limit - remaining)`.\n\
         - Azure: when a counter is empty, its renewal period is waited for, since `retry-after` is too short there. -1 means \
         unknown.\n\
         - Anthropic: a 429 without `retry-after` is a spend cap, unless the message names a rate.\n\
         - Google: a `quotaId` with {daily} is spent until midnight Pacific, whatever `RetryInfo` says; so is a \
         `retryDelay` above {}. `limit: 0` is a model that is not offered. A 429 without details is a busy shared pool.\n\
         - A month or a day in words, without a wait: spent.\n\
         - LiteLLM: `reset_at` is waited for; `retry-after` is the length of the window.\n\
         - OpenRouter: headers are read from the body; `limit_source: *shared*` is not the caller's limit.\n\
         - A throttle with a wait above {} is a quota spent for now, with the time of its reset. No wait is longer than {}.\n\
         - Absolute times are read against the response's own `date`.\n",
        duration(LONGEST_GOOGLE_DELAY),
        duration(Reader::PATIENCE),
        duration(Reader::MAX_WAIT),
    )
    .unwrap();
}

fn samples(page: &mut String) {
    page.push_str(
        "\n## Sample answers\n\nWhat the code makes of each file in `tests/data/provider/`.\n\n\
         | answer | status | kind | wait | short of | what it shows | source |\n|---|---|---|---|---|---|---|\n",
    );
    for sample in Sample::all() {
        let verdict = sample.read().verdict;
        let wait = verdict.wait.map(duration).unwrap_or_default();
        let short_of = verdict.dimension.map_or("", penstock::cost::Dimension::name);
        let status = sample.status.to_string();
        line(page, &[&sample.name, &status, verdict.kind.name(), &wait, short_of, &sample.about, &sample.source]);
    }
}

fn profiles(page: &mut String) {
    page.push_str(
        "\n## How providers count and enforce\n\n\
         | provider | enforcement | a call reserves | settled | cached input | failures count | burst | windows | scope | note \
         |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for profile in &PROFILES {
        let failures = profile.failures_count.map_or("unknown", |count| if count { "yes" } else { "no" });
        line(
            page,
            &[
                profile.title,
                enforcement(profile.enforcement),
                &reservation(profile.reservation),
                match profile.settlement {
                    Settlement::ToUsage => "to usage",
                    Settlement::AsUsed => "as used",
                    Settlement::Undocumented => "unknown",
                },
                match profile.cached {
                    CachedTokens::Count => "counts",
                    CachedTokens::Free => "free",
                    CachedTokens::FreeAsInput => "free as input, counts in total",
                },
                failures,
                &burst(profile),
                &windows(profile),
                profile.scope,
                profile.note,
            ],
        );
    }
}

fn enforcement(enforcement: Enforcement) -> &'static str {
    match enforcement {
        Enforcement::ContinuousBucket => "token bucket",
        Enforcement::FixedWindow => "fixed windows",
        Enforcement::SlidingWindow => "sliding window",
        Enforcement::Adaptive => "adaptive",
        Enforcement::SharedPool => "shared pool",
        Enforcement::Queue => "queue",
        Enforcement::Undocumented => "unknown",
    }
}

fn reservation(reservation: Reservation) -> String {
    match reservation {
        Reservation::LargerOfTextAndMax => "the larger of text and max_tokens".to_owned(),
        Reservation::TextPlusMax { unset: None } => "text + max_tokens".to_owned(),
        Reservation::TextPlusMax { unset: Some(tokens) } => format!("text + max_tokens (unset: {tokens})"),
        Reservation::TextOnly => "text".to_owned(),
        Reservation::Usage => "what it uses".to_owned(),
    }
}

fn burst(profile: &Profile) -> String {
    if profile.burst >= 1.0 { "a window".to_owned() } else { format!("1/{:.0} of a window", 1.0 / profile.burst) }
}

fn windows(profile: &Profile) -> String {
    let window = |window: Option<Duration>| window.map_or("told or solved".to_owned(), duration);
    format!("requests {}, tokens {}", window(profile.request_window), window(profile.token_window))
}

fn counters(page: &mut String) {
    page.push_str(
        "\n## Counters in headers\n\n`x-ratelimit-{limit,remaining,reset,renewalperiod}-COUNTER`, \
         `anthropic-ratelimit-COUNTER-{limit,remaining,reset}`, and what stands alone.\n\n\
         | counter | dimension | window |\n|---|---|---|\n",
    );
    for counter in COUNTERS {
        let name = if counter.name.is_empty() { "(none)".to_owned() } else { format!("`{}`", counter.name) };
        line(page, &[&name, counter.dimension.name(), &counter.window.map(duration).unwrap_or_default()]);
    }
}

fn line(page: &mut String, cells: &[&str]) {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    writeln!(page, "| {} |", cells.join(" | ")).unwrap();
}

/// `432 s`, `1.78 s`, `0.308 s`.
fn duration(duration: Duration) -> String {
    let text = format!("{:.9}", duration.as_secs_f64());
    format!("{} s", text.trim_end_matches('0').trim_end_matches('.'))
}
