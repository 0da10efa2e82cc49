//! What codes, sentences and statuses mean: the tables that verdicts are read from.
//!
//! `docs/verdicts.md` is printed from the same tables. Structured codes come before prose and prose before the status,
//! since the same sentence can be a throttle at one provider and an empty account at another.

use super::names::Provider;
use super::verdict::Kind;

/// One signal and what it means.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The code, or the words, all in lower case.
    pub signal: &'static str,
    /// The one provider it applies to, if not to all.
    pub provider: Option<Provider>,
    /// What it means.
    pub kind: Kind,
    /// Who says so, and what to know.
    pub note: &'static str,
}

const fn rule(signal: &'static str, kind: Kind, note: &'static str) -> Rule {
    Rule { signal, provider: None, kind, note }
}

const fn rule_of(provider: Provider, signal: &'static str, kind: Kind, note: &'static str) -> Rule {
    Rule { signal, provider: Some(provider), kind, note }
}

/// Structured codes: `error.code`, `error.type`, `error.status`, `error.details.error_code`, `__type`,
/// `x-amzn-errortype`; compared without case. A signal that starts with `*` matches the end of a code.
pub const CODES: &[Rule] = &[
    rule("insufficient_quota", Kind::QuotaExhausted, "OpenAI: the account is empty"),
    rule("credit_balance_exhausted", Kind::QuotaExhausted, "OpenAI"),
    rule("*_spend_limit_exceeded", Kind::QuotaExhausted, "OpenAI: organization or project"),
    rule("*_spend_limit_reached", Kind::QuotaExhausted, "Anthropic: `error.details.error_code`"),
    rule("usage_not_included", Kind::QuotaExhausted, "OpenAI: the plan does not include it"),
    rule("billing_error", Kind::QuotaExhausted, "Anthropic 402"),
    rule("servicequotaexceededexception", Kind::QuotaExhausted, "Bedrock 400"),
    rule("request_too_large", Kind::Oversize, "Anthropic 413"),
    rule("slow_down", Kind::Overloaded, "OpenAI: a ramp too steep, even inside RPM and TPM"),
    rule("server_is_overloaded", Kind::Overloaded, "OpenAI 503, and in streams after a 200"),
    rule("service_unavailable_error", Kind::Overloaded, "OpenAI 503"),
    rule("overloaded_error", Kind::Overloaded, "Anthropic 529, and in streams after a 200"),
    rule("service_tier_capacity_exceeded", Kind::Overloaded, "Mistral"),
    rule("3505", Kind::Overloaded, "Mistral: capacity of the service tier"),
    rule("unavailable", Kind::Overloaded, "Google 503"),
    rule("serviceunavailableexception", Kind::Overloaded, "Bedrock 503"),
    rule("rate_limit_exceeded", Kind::Throttled, "OpenAI, Groq"),
    rule("rate_limit_error", Kind::Throttled, "Anthropic"),
    rule("resource_exhausted", Kind::Throttled, "Google; without details it is a shared pool: overloaded"),
    rule("throttlingexception", Kind::Throttled, "Bedrock 429"),
    rule("modelnotreadyexception", Kind::Transient, "Bedrock 429, but not a throttle"),
    rule("modeltimeoutexception", Kind::Transient, "Bedrock 408"),
    rule("modelstreamerrorexception", Kind::Transient, "Bedrock 424"),
    rule("internalserverexception", Kind::Transient, "Bedrock 500"),
    rule("api_error", Kind::Transient, "Anthropic 500"),
    rule("server_error", Kind::Transient, "OpenAI 500, and in streams after a 200"),
    rule("internal", Kind::Transient, "Google 500"),
    rule("deadline_exceeded", Kind::Transient, "Google 504"),
    rule("invalid_request_error", Kind::Fatal, "OpenAI, Anthropic"),
    rule("authentication_error", Kind::Fatal, "Anthropic 401"),
    rule("permission_error", Kind::Fatal, "Anthropic 403"),
    rule("not_found_error", Kind::Fatal, "Anthropic 404"),
    rule("invalid_argument", Kind::Fatal, "Google 400"),
    rule("permission_denied", Kind::Fatal, "Google 403"),
    rule("validationexception", Kind::Fatal, "Bedrock 400"),
    rule("accessdeniedexception", Kind::Fatal, "Bedrock 403"),
];

/// Words in a message, in lower case, for what no code tells.
pub const PROSE: &[Rule] = &[
    rule("request too large", Kind::Oversize, "OpenAI (429), Groq (413): larger than the limit itself"),
    rule("prepayment credits are depleted", Kind::QuotaExhausted, "Gemini 429"),
    rule("credit balance is too low", Kind::QuotaExhausted, "Anthropic 400"),
    rule("acceleration limit", Kind::Overloaded, "Anthropic: a ramp too steep"),
    rule("concurrent connections", Kind::Overloaded, "Anthropic: too many calls at once"),
    rule("maximum pending requests exceeded", Kind::Overloaded, "Ollama: its queue is full"),
    rule_of(Provider::Bedrock, "please wait before trying again", Kind::Throttled, "Bedrock; 'too many tokens' too"),
];

/// Statuses, first match first: from, to, meaning, note.
pub const STATUSES: &[(u16, u16, Kind, &str)] = &[
    (0, 0, Kind::Transient, "no response: refused, reset, timed out"),
    (100, 299, Kind::Ok, "unless the body carries an error"),
    (300, 399, Kind::Fatal, "a redirect that nobody followed"),
    (402, 402, Kind::QuotaExhausted, "payment required"),
    (408, 409, Kind::Transient, "timeout, conflict"),
    (413, 413, Kind::Oversize, "teaches the limit"),
    (425, 425, Kind::Transient, "too early"),
    (429, 429, Kind::Throttled, "see the rules below"),
    (400, 499, Kind::Fatal, "the request itself is wrong"),
    (501, 501, Kind::Fatal, "not implemented"),
    (503, 503, Kind::Overloaded, ""),
    (505, 505, Kind::Fatal, "HTTP version"),
    (529, 529, Kind::Overloaded, "Anthropic"),
    (500, 599, Kind::Transient, "500, 502, 504 and gateways' own"),
];

/// Parts of a Google `quotaId` that name a quota of a day. They decide before `RetryInfo` does, which states a short
/// delay even then (recorded: `PerDay` with `retryDelay: "1s"`; Google's gemini-cli looks in this order too).
pub const DAILY_QUOTA_IDS: &[&str] = &["perday", "daily"];

/// The strongest of these codes and what it means, if one is known.
pub(crate) fn deciding_code<'a>(codes: impl Iterator<Item = &'a str>) -> Option<(&'a str, Kind)> {
    let known = codes.filter_map(|code| Some((code, kind_of_code(code)?)));
    // The first of equals, which is the most specific.
    known.reduce(|best, next| if strength(next.1) > strength(best.1) { next } else { best })
}

/// What a code means on its own, if it is known.
pub(crate) fn kind_of_code(code: &str) -> Option<Kind> {
    CODES.iter().find(|rule| matches_code(rule.signal, code)).map(|rule| rule.kind)
}

fn matches_code(signal: &str, code: &str) -> bool {
    match signal.strip_prefix('*') {
        Some(ending) => code
            .len()
            .checked_sub(ending.len())
            .and_then(|start| code.get(start..))
            .is_some_and(|end| end.eq_ignore_ascii_case(ending)),
        None => code.eq_ignore_ascii_case(signal),
    }
}

/// What the message means, if its words are known. `message` is in lower case.
pub(crate) fn kind_of_prose(provider: Provider, message: &str) -> Option<Kind> {
    let applies = |of: Option<Provider>| of.is_none_or(|of| provider == of || provider == Provider::Unknown);
    PROSE.iter().find(|rule| applies(rule.provider) && message.contains(rule.signal)).map(|rule| rule.kind)
}

/// What a status means on its own.
pub(crate) fn kind_of_status(status: u16) -> Kind {
    STATUSES.iter().find(|(from, to, ..)| (*from..=*to).contains(&status)).map_or(Kind::Fatal, |(_, _, kind, _)| *kind)
}

/// Which of several codes decides: an empty account before a throttle, a throttle before "invalid request".
fn strength(kind: Kind) -> u8 {
    match kind {
        Kind::QuotaExhausted => 6,
        Kind::Oversize => 5,
        Kind::Overloaded => 4,
        Kind::Throttled => 3,
        Kind::Transient => 2,
        Kind::Fatal => 1,
        Kind::Ok => 0,
    }
}
