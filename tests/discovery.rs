//! Zero configuration, in virtual time: a limiter that was told nothing finds the provider's limits from its answers, or by
//! trying where they say nothing, and then runs at them. Each server enforces and answers as the provider does.

#[path = "support/cases.rs"]
mod cases;
mod support;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use cases::cases;
use penstock::clock::{Nanos, SECOND};
use penstock::cost::{Cost, Dimension};
use penstock::gate::{Admission, Config, Gate, Grant, Request};
use penstock::provider::{Headers, Kind, Provider, Reading, read};
use proptest::prelude::*;
use support::{Chance, HOUR, MILLISECOND, MINUTE};

const DAY: Nanos = 24 * HOUR;
/// Seconds since 1970 at the start of a run.
const EPOCH: f64 = 1_767_225_600.0;

/// One limit, as it is counted.
enum Count {
    /// Full at first, refilled evenly; in units of one over the period.
    Bucket { level: u128, last: Nanos },
    /// Starts anew every period.
    Fixed { window: Nanos, used: u64 },
    /// What was used in the last period.
    Rolling { log: VecDeque<(Nanos, u64)>, used: u64 },
}

struct Limit {
    dimension: Dimension,
    amount: u64,
    period: Nanos,
    count: Count,
}

impl Limit {
    fn bucket(dimension: Dimension, amount: u64, period: Nanos) -> Self {
        let level = u128::from(amount) * u128::from(period);
        Self { dimension, amount, period, count: Count::Bucket { level, last: 0 } }
    }

    fn fixed(dimension: Dimension, amount: u64, period: Nanos) -> Self {
        Self { dimension, amount, period, count: Count::Fixed { window: 0, used: 0 } }
    }

    fn rolling(dimension: Dimension, amount: u64, period: Nanos) -> Self {
        Self { dimension, amount, period, count: Count::Rolling { log: VecDeque::new(), used: 0 } }
    }

    fn left(&mut self, now: Nanos) -> u64 {
        match &mut self.count {
            Count::Bucket { level, last } => {
                let full = u128::from(self.amount) * u128::from(self.period);
                *level = (*level + u128::from(now - *last) * u128::from(self.amount)).min(full);
                *last = now;
                u64::try_from(*level / u128::from(self.period)).unwrap()
            }
            Count::Fixed { window, used } => {
                if now / self.period != *window {
                    (*window, *used) = (now / self.period, 0);
                }
                self.amount.saturating_sub(*used)
            }
            Count::Rolling { log, used } => {
                while log.front().is_some_and(|(then, _)| then + self.period <= now) {
                    *used -= log.pop_front().map_or(0, |(_, amount)| amount);
                }
                self.amount.saturating_sub(*used)
            }
        }
    }

    fn take(&mut self, cost: &Cost, now: Nanos) {
        let amount = cost.get(self.dimension);
        match &mut self.count {
            Count::Bucket { level, .. } => *level -= u128::from(amount) * u128::from(self.period),
            Count::Fixed { used, .. } => *used += amount,
            Count::Rolling { log, used } => {
                log.push_back((now, amount));
                *used += amount;
            }
        }
    }

    /// How long until so much is there: until it is all there, if nothing is asked for.
    fn wait(&mut self, wanted: u64, now: Nanos) -> Nanos {
        let left = self.left(now);
        let missing = wanted.saturating_sub(left);
        match &self.count {
            _ if missing == 0 => 0,
            Count::Bucket { .. } => missing * (self.period / self.amount) + SECOND / 1_000,
            Count::Fixed { .. } => self.period - now % self.period,
            Count::Rolling { log, .. } => {
                let mut freed = 0;
                let last = log.iter().find(|(_, amount)| {
                    freed += amount;
                    freed >= missing
                });
                last.map_or(self.period, |(then, _)| then + self.period - now)
            }
        }
    }
}

/// How a provider speaks.
type Speech = fn(&mut [Limit], Nanos, Option<usize>, u64) -> (Vec<(String, String)>, String);

type MakeServer = fn() -> Server;
type MakeLimit = fn(Dimension, u64, Nanos) -> Limit;

struct Server {
    provider: Provider,
    limits: Vec<Limit>,
    /// Headers and body of an answer: which limit was short, if one was, and what was asked of it.
    speak: Speech,
    accepted: Vec<(Nanos, Cost)>,
    refused: Vec<Nanos>,
    /// When its first limit becomes which.
    changes: Option<(Nanos, u64)>,
}

impl Server {
    fn new(provider: Provider, limits: Vec<Limit>, speak: Speech) -> Self {
        Self { provider, limits, speak, accepted: Vec::new(), refused: Vec::new(), changes: None }
    }

    fn answer(&mut self, cost: &Cost, now: Nanos) -> Reading {
        if let Some((_, amount)) = self.changes.take_if(|(at, _)| now >= *at) {
            self.limits[0].amount = amount;
        }
        let short = (0..self.limits.len()).find(|&place| {
            let limit = &mut self.limits[place];
            limit.left(now) < cost.get(limit.dimension)
        });
        if short.is_none() {
            for limit in &mut self.limits {
                limit.take(cost, now);
            }
            self.accepted.push((now, *cost));
        } else {
            self.refused.push(now);
        }
        let requested = short.map_or(0, |place| cost.get(self.limits[place].dimension));
        let (headers, body) = (self.speak)(&mut self.limits, now, short, requested);
        let pairs: Vec<_> = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let status = if short.is_some() { 429 } else { 200 };
        read(self.provider, status, Headers::new(&pairs), body.as_bytes(), clock(now))
    }
}

#[allow(clippy::cast_precision_loss)]
fn clock(now: Nanos) -> f64 {
    EPOCH + now as f64 / 1e9
}

fn date(at: Nanos) -> String {
    // The runs begin at midnight of a first of January and are shorter than a day.
    let seconds = at / SECOND;
    format!("2026-01-01T{:02}:{:02}:{:02}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

fn name(dimension: Dimension) -> &'static str {
    if dimension == Dimension::Requests { "requests" } else { "tokens" }
}

fn millis(wait: Nanos) -> String {
    format!("{}ms", wait / MILLISECOND)
}

fn openai_headers(limits: &mut [Limit], now: Nanos) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for limit in limits.iter_mut() {
        let (kind, left) = (name(limit.dimension), limit.left(now));
        headers.push((format!("x-ratelimit-limit-{kind}"), limit.amount.to_string()));
        headers.push((format!("x-ratelimit-remaining-{kind}"), left.to_string()));
        headers.push((format!("x-ratelimit-reset-{kind}"), millis(limit.wait(limit.amount, now))));
    }
    headers
}

fn openai_refusal(limit: &mut Limit, requested: u64, now: Nanos) -> String {
    let (kind, short) = match (limit.dimension, limit.period >= DAY) {
        (Dimension::Requests, false) => ("requests per min", "RPM"),
        (Dimension::Requests, true) => ("requests per day", "RPD"),
        (_, false) => ("tokens per min", "TPM"),
        (_, true) => ("tokens per day", "TPD"),
    };
    let (used, wait) = (limit.amount - limit.left(now), millis(limit.wait(requested, now)));
    format!(
        r#"{{"error":{{"message":"Rate limit reached for m in organization o on {kind} ({short}): Limit {}, Used {used}, Requested {requested}. Please try again in {wait}.","type":"{}","code":"rate_limit_exceeded"}}}}"#,
        limit.amount,
        name(limit.dimension)
    )
}

/// Headers of all limits; a message with the numbers.
fn openai(limits: &mut [Limit], now: Nanos, short: Option<usize>, requested: u64) -> (Vec<(String, String)>, String) {
    let headers = openai_headers(limits, now);
    (headers, short.map_or_else(|| "{}".to_owned(), |place| openai_refusal(&mut limits[place], requested, now)))
}

/// The requests of a day and the tokens of a minute are in the headers; the requests of a minute are in messages alone.
fn groq(limits: &mut [Limit], now: Nanos, short: Option<usize>, requested: u64) -> (Vec<(String, String)>, String) {
    let headers = openai_headers(&mut limits[1..], now);
    (headers, short.map_or_else(|| "{}".to_owned(), |place| openai_refusal(&mut limits[place], requested, now)))
}

/// The period is in the header of the period; `retry-after` lies.
fn azure(limits: &mut [Limit], now: Nanos, short: Option<usize>, _: u64) -> (Vec<(String, String)>, String) {
    let mut headers = Vec::new();
    for limit in limits.iter_mut() {
        let (kind, left) = (name(limit.dimension), limit.left(now));
        headers.push((format!("x-ratelimit-limit-{kind}"), limit.amount.to_string()));
        headers.push((format!("x-ratelimit-remaining-{kind}"), left.to_string()));
        headers.push((format!("x-ratelimit-renewalperiod-{kind}"), (limit.period / SECOND).to_string()));
        headers.push((format!("x-ratelimit-reset-{kind}"), "0".to_owned()));
    }
    if short.is_some() {
        headers.push(("retry-after-ms".to_owned(), "0".to_owned()));
        headers.push(("retry-after".to_owned(), "1".to_owned()));
    }
    (headers, r#"{"choices":[]}"#.to_owned())
}

/// Input and output apart, dates, and what is left rounded to thousands.
fn anthropic(
    limits: &mut [Limit],
    now: Nanos,
    short: Option<usize>,
    requested: u64,
) -> (Vec<(String, String)>, String) {
    let mut headers = vec![("date".to_owned(), "Thu, 01 Jan 2026 00:00:00 GMT".to_owned())];
    for limit in limits.iter_mut() {
        let kind = limit.dimension.name().replace('_', "-");
        let left = limit.left(now);
        let left = if limit.dimension == Dimension::Requests { left } else { (left + 500) / 1_000 * 1_000 };
        let full = limit.wait(limit.amount, now);
        headers.push((format!("anthropic-ratelimit-{kind}-limit"), limit.amount.to_string()));
        headers.push((format!("anthropic-ratelimit-{kind}-remaining"), left.to_string()));
        headers.push((format!("anthropic-ratelimit-{kind}-reset"), date(full)));
    }
    let Some(place) = short else { return (headers, "{}".to_owned()) };
    let limit = &mut limits[place];
    headers.push(("retry-after".to_owned(), limit.wait(requested, now).div_ceil(SECOND).to_string()));
    let kind = limit.dimension.name().replace('_', " ");
    let message =
        format!("This request would exceed your organization's rate limit of {} {kind} per minute", limit.amount);
    (headers, format!(r#"{{"type":"error","error":{{"type":"rate_limit_error","message":"{message}"}}}}"#))
}

/// The window is in the name, and no answer says when it ends.
fn mistral(limits: &mut [Limit], now: Nanos, _: Option<usize>, _: u64) -> (Vec<(String, String)>, String) {
    let mut headers = Vec::new();
    for limit in limits.iter_mut() {
        let kind = if limit.dimension == Dimension::Requests { "req-10-second" } else { "tokens-minute" };
        headers.push((format!("x-ratelimit-limit-{kind}"), limit.amount.to_string()));
        headers.push((format!("x-ratelimit-remaining-{kind}"), limit.left(now).to_string()));
    }
    (headers, r#"{"message":"Requests rate limit exceeded"}"#.to_owned())
}

/// Nothing, but the refusal names the quota.
fn gemini(limits: &mut [Limit], now: Nanos, short: Option<usize>, requested: u64) -> (Vec<(String, String)>, String) {
    let Some(place) = short else { return (Vec::new(), "{}".to_owned()) };
    let limit = &mut limits[place];
    let (metric, id) = if limit.dimension == Dimension::Requests {
        ("generate_content_requests", "GenerateRequestsPerMinutePerProjectPerModel")
    } else {
        ("generate_content_input_token_count", "GenerateContentInputTokensPerModelPerMinute")
    };
    let wait = limit.wait(requested, now).div_ceil(SECOND);
    let body = format!(
        r#"{{"error":{{"code":429,"message":"You exceeded your current quota.","status":"RESOURCE_EXHAUSTED","details":[
           {{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{{"quotaMetric":"generativelanguage.googleapis.com/{metric}","quotaId":"{id}","quotaValue":"{}"}}]}},
           {{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"{wait}s"}}]}}}}"#,
        limit.amount
    );
    (Vec::new(), body)
}

/// Nothing ever, but which of them was short.
fn bedrock(limits: &mut [Limit], _: Nanos, short: Option<usize>, _: u64) -> (Vec<(String, String)>, String) {
    let Some(place) = short else { return (Vec::new(), "{}".to_owned()) };
    let what = name(limits[place].dimension);
    let headers = vec![("x-amzn-errortype".to_owned(), "ThrottlingException".to_owned())];
    (headers, format!(r#"{{"message":"Too many {what}, please wait before trying again."}}"#))
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Arrives(usize),
    Answered(usize),
}

struct Run {
    accepted: Vec<(Nanos, Cost)>,
    refused: Vec<Nanos>,
    gate: Gate<()>,
    end: Nanos,
}

impl Run {
    /// Refusals from that time on.
    fn refused_after(&self, from: Nanos) -> usize {
        self.refused.iter().filter(|at| **at >= from).count()
    }

    /// What share of a limit was used from `from` on, in thousandths.
    fn used(&self, dimension: Dimension, amount: u64, period: Nanos, from: Nanos) -> u64 {
        let sum: u64 = self.accepted.iter().filter(|(at, _)| *at >= from).map(|(_, cost)| cost.get(dimension)).sum();
        let most = u128::from(amount) * u128::from(self.end - from) / u128::from(period);
        u64::try_from(u128::from(sum) * 1_000 / most).unwrap()
    }

    fn rates(&mut self) -> Vec<(Dimension, u64, Nanos)> {
        let levels = self.gate.levels(self.end);
        levels.iter().map(|level| (level.dimension, level.rate.amount(), level.rate.period())).collect()
    }
}

/// A limiter that knows whom it calls and nothing else, before a server, with always more to do than the server takes.
fn run(mut server: Server, minutes: u64, mut size: impl FnMut(&mut Chance) -> Cost) -> Run {
    let mut chance = Chance::new(11);
    let mut gate: Gate<()> = Gate::new(Config { discover: Some(server.provider), ..Config::default() }, 0);
    let mut steps: BinaryHeap<Reverse<(Nanos, u64, Step)>> = BinaryHeap::new();
    let mut calls: Vec<(Grant, Option<Reading>)> = Vec::new();
    let (mut now, mut order, end) = (0, 0, minutes * MINUTE);
    while now < end {
        let mut settled = Vec::new();
        while gate.waiting() < 30 {
            let request = Request { cost: size(&mut chance), ..Request::default() };
            match gate.admit(now, &request, &mut settled) {
                Admission::Granted(grant) => settled.push(((), Ok(grant))),
                Admission::Queued(_) => {}
                Admission::Refused(refusal) => panic!("{refusal}"),
            }
        }
        gate.pump(now, &mut settled);
        for ((), outcome) in settled {
            order += 1;
            let at = now + chance.between(10 * MILLISECOND, 60 * MILLISECOND);
            steps.push(Reverse((at, order, Step::Arrives(calls.len()))));
            calls.push((outcome.unwrap(), None));
        }
        let next = steps.peek().map(|Reverse((at, ..))| *at);
        now = [next, gate.next_event()].into_iter().flatten().min().unwrap_or(now + 10 * MILLISECOND).max(now + 1);
        while let Some(Reverse((at, ..))) = steps.peek()
            && *at <= now
        {
            let Some(Reverse((at, _, step))) = steps.pop() else { break };
            order += 1;
            match step {
                Step::Arrives(place) => {
                    let reading = server.answer(&calls[place].0.cost, at);
                    let is_served = reading.verdict.kind == Kind::Ok;
                    calls[place].1 = Some(reading);
                    let took =
                        if is_served { chance.between(200 * MILLISECOND, 900 * MILLISECOND) } else { 30 * MILLISECOND };
                    steps.push(Reverse((at + took, order, Step::Answered(place))));
                }
                Step::Answered(place) => {
                    let (grant, reading) = &mut calls[place];
                    let mut settled = Vec::new();
                    gate.observe(at, reading.as_ref().unwrap(), Some(grant.charged_at), &mut settled);
                    assert!(settled.is_empty(), "{settled:?}");
                    if reading.as_ref().is_some_and(|reading| reading.verdict.kind != Kind::Ok) {
                        gate.settle(at, grant, &Cost { requests: 1, ..Cost::default() });
                    }
                    gate.release(at, grant);
                }
            }
        }
    }
    Run { accepted: server.accepted, refused: server.refused, gate, end }
}

fn sized(cost: Cost) -> impl FnMut(&mut Chance) -> Cost {
    move |_| cost
}

fn heavy(chance: &mut Chance) -> Cost {
    let tokens = chance.tokens();
    let output = tokens / 5;
    Cost { requests: 1, tokens, input_tokens: tokens - output, output_tokens: output }
}

/// Runs, and prints what came of it.
fn report(name: &str, run: &Run, limits: &[(Dimension, u64, Nanos)]) -> u64 {
    let used = |&(dimension, amount, period): &(Dimension, u64, Nanos)| run.used(dimension, amount, period, MINUTE);
    let most = limits.iter().map(used).max().unwrap();
    println!(
        "{name}: {} refused in the first ten seconds, {} after; {}.{} % used from the second minute on",
        run.refused.len() - run.refused_after(10 * SECOND),
        run.refused_after(10 * SECOND),
        most / 10,
        most % 10
    );
    most
}

use Dimension::{InputTokens, OutputTokens, Requests, Tokens};

/// Each provider that names its limits: none refused after the first seconds, and 95 % of the tightest limit used.
#[test]
fn limits_that_are_told_are_used_and_kept() {
    let requests_bind = Cost { requests: 1, tokens: 100, input_tokens: 80, output_tokens: 20 };
    let servers: Vec<(&str, MakeServer)> = vec![
        ("openai", || {
            let limits = vec![Limit::bucket(Requests, 500, MINUTE), Limit::bucket(Tokens, 200_000, MINUTE)];
            Server::new(Provider::OpenAi, limits, openai)
        }),
        ("azure", || {
            let limits = vec![Limit::fixed(Requests, 100, 10 * SECOND), Limit::fixed(Tokens, 150_000, MINUTE)];
            Server::new(Provider::AzureOpenAi, limits, azure)
        }),
        ("anthropic", || {
            let limits = vec![
                Limit::bucket(Requests, 400, MINUTE),
                Limit::bucket(InputTokens, 300_000, MINUTE),
                Limit::bucket(OutputTokens, 60_000, MINUTE),
            ];
            Server::new(Provider::Anthropic, limits, anthropic)
        }),
        ("mistral", || {
            let limits = vec![Limit::rolling(Requests, 60, 10 * SECOND), Limit::rolling(Tokens, 250_000, MINUTE)];
            Server::new(Provider::Mistral, limits, mistral)
        }),
        ("unknown, fixed windows", || {
            let limits = vec![Limit::fixed(Requests, 300, MINUTE), Limit::fixed(Tokens, 150_000, MINUTE)];
            Server::new(Provider::Unknown, limits, openai)
        }),
        ("fixed windows in OpenAI's words", || {
            let limits = vec![Limit::fixed(Requests, 500, MINUTE), Limit::fixed(Tokens, 200_000, MINUTE)];
            Server::new(Provider::OpenAi, limits, openai)
        }),
        ("rolling windows in OpenAI's words", || {
            let limits = vec![Limit::rolling(Requests, 500, MINUTE), Limit::rolling(Tokens, 200_000, MINUTE)];
            Server::new(Provider::OpenAi, limits, openai)
        }),
        ("unknown, rolling windows", || {
            let limits = vec![Limit::rolling(Requests, 300, MINUTE), Limit::rolling(Tokens, 150_000, MINUTE)];
            Server::new(Provider::Unknown, limits, openai)
        }),
    ];
    for (name, server) in servers {
        let limits: Vec<_> =
            server().limits.iter().map(|limit| (limit.dimension, limit.amount, limit.period)).collect();
        for (load, mut run) in
            [("requests", run(server(), 6, sized(requests_bind))), ("tokens", run(server(), 6, heavy))]
        {
            let used = report(&format!("{name}, bound by {load}"), &run, &limits);
            assert_eq!(run.refused_after(10 * SECOND), 0, "{name}, {load}");
            assert!(used >= 950, "{name}, {load}: {used}");
            assert_eq!(run.rates(), limits, "{name}");
        }
    }
}

/// Groq names the requests of a day in its headers, and those of a minute only when it refuses.
#[test]
fn a_limit_that_only_a_refusal_tells_is_found_with_few_refusals() {
    let limits = || {
        let requests = [Limit::bucket(Requests, 30, MINUTE), Limit::bucket(Requests, 14_400, DAY)];
        requests.into_iter().chain([Limit::bucket(Tokens, 60_000, MINUTE)]).collect()
    };
    let mut run = run(Server::new(Provider::Groq, limits(), groq), 30, sized(support::tokens(100)));
    let used = report("groq", &run, &[(Requests, 30, MINUTE)]);
    assert!((1..=10).contains(&run.refused.len()), "{}", run.refused.len());
    assert_eq!(run.refused_after(2 * MINUTE), 0);
    assert!(used >= 950, "{used}");
    let rates = run.rates();
    assert!(rates.contains(&(Requests, 30, MINUTE)) && rates.contains(&(Requests, 14_400, DAY)), "{rates:?}");
}

/// Gemini says nothing until it refuses; then the refusal names the limit.
#[test]
fn gemini_is_found_by_trying_once() {
    for (binding, size) in [(Requests, 100), (InputTokens, 20_000)] {
        let limits = vec![Limit::rolling(Requests, 150, MINUTE), Limit::rolling(InputTokens, 1_000_000, MINUTE)];
        let cost = Cost { requests: 1, tokens: size, input_tokens: size, output_tokens: 0 };
        let run = run(Server::new(Provider::Gemini, limits, gemini), 15, sized(cost));
        let bound = if binding == Requests { (Requests, 150, MINUTE) } else { (InputTokens, 1_000_000, MINUTE) };
        let used = report(&format!("gemini, bound by {binding}"), &run, &[bound]);
        assert!((1..=60).contains(&run.refused.len()), "{}", run.refused.len());
        assert_eq!(run.refused_after(3 * MINUTE), 0, "{binding}");
        assert!(run.used(bound.0, bound.1, bound.2, 3 * MINUTE) >= 950, "{binding}: {used}");
    }
}

/// A limit that nobody names is raised, and lowered: both are noticed.
#[test]
fn bedrock_that_changes_its_mind_is_followed() {
    for (before, after) in [(400, 800), (800, 400)] {
        let limits = vec![Limit::rolling(Requests, before, MINUTE)];
        let server = Server { changes: Some((20 * MINUTE, after)), ..Server::new(Provider::Bedrock, limits, bedrock) };
        let run = run(server, 60, sized(support::tokens(100)));
        let late = run.used(Requests, after, MINUTE, 50 * MINUTE);
        println!("bedrock, {before} to {after}: {} refused, {late} thousandths used in the end", run.refused.len());
        assert!(late >= 900, "{before} to {after}: {late}");
        assert!(run.refused.len() <= 30, "{before} to {after}: {}", run.refused.len());
    }
}

/// Bedrock never says a number: the rate falls below what was taken, and feels its way up again.
#[test]
fn bedrock_is_felt_out() {
    let servers: [(&str, MakeLimit); 3] =
        [("bucket", Limit::bucket), ("fixed", Limit::fixed), ("rolling", Limit::rolling)];
    for (name, limit) in servers {
        for (binding, amount, size) in [(Requests, 500, 100), (Tokens, 400_000, 4_000)] {
            let other = if binding == Requests { (Tokens, 4_000_000) } else { (Requests, 5_000) };
            let limits = vec![limit(binding, amount, MINUTE), limit(other.0, other.1, MINUTE)];
            let run = run(Server::new(Provider::Bedrock, limits, bedrock), 60, sized(support::tokens(size)));
            let name = format!("bedrock, {name}, bound by {binding}");
            report(&name, &run, &[(binding, amount, MINUTE)]);
            let used = run.used(binding, amount, MINUTE, 10 * MINUTE);
            let (refused, sent) = (run.refused_after(10 * MINUTE), run.accepted.len());
            println!("    from the eleventh minute on: {refused} of about {sent} refused, {used} thousandths used");
            assert!(used >= 960, "{name}: {used}");
            assert!(refused <= 10 && run.refused.len() <= 40, "{name}: {refused} of {}", run.refused.len());
        }
    }
}

/// A process that starts anew before a quota that its predecessor has nearly used is not refused.
#[test]
fn what_was_used_before_counts() {
    let mut requests = Limit::fixed(Requests, 300, MINUTE);
    requests.left(0);
    for _ in 0..290 {
        requests.take(&support::CALL, 0);
    }
    let run = run(Server::new(Provider::Unknown, vec![requests], openai), 4, sized(support::CALL));
    report("a quota used before", &run, &[(Requests, 300, MINUTE)]);
    assert_eq!(run.refused.len(), 0);
    assert!(run.used(Requests, 300, MINUTE, MINUTE) >= 950);
}

fn hear(gate: &mut Gate<()>, now: Nanos, limit: u64, remaining: u64) {
    let headers =
        [("x-ratelimit-limit-requests", limit.to_string()), ("x-ratelimit-remaining-requests", remaining.to_string())];
    let pairs: Vec<_> = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    let reading = read(Provider::OpenAi, 200, Headers::new(&pairs), b"{}", clock(now));
    gate.observe(now, &reading, Some(now), &mut Vec::new());
}

fn amounts(gate: &mut Gate<()>, now: Nanos) -> Vec<u64> {
    gate.levels(now).iter().map(|level| level.rate.amount()).collect()
}

/// A lower limit holds at once; a higher one when nothing lower was told for a minute, so that two models of one limiter
/// run at the smaller limit.
#[test]
fn limits_fall_at_once_and_rise_when_it_is_sure() {
    let mut gate: Gate<()> = Gate::new(Config { discover: Some(Provider::OpenAi), ..Config::default() }, 0);
    assert_eq!(amounts(&mut gate, 0), [20]);
    hear(&mut gate, SECOND, 500, 499);
    assert_eq!(amounts(&mut gate, SECOND), [500]);
    hear(&mut gate, 2 * SECOND, 5_000, 4_990);
    assert_eq!(amounts(&mut gate, 2 * SECOND), [500]);
    hear(&mut gate, 3 * SECOND, 100, 99);
    assert_eq!(amounts(&mut gate, 3 * SECOND), [100]);
    for second in 4..62 {
        hear(&mut gate, second * SECOND, 5_000, 4_990);
        assert_eq!(amounts(&mut gate, second * SECOND), [100]);
    }
    hear(&mut gate, 63 * SECOND, 5_000, 4_990);
    assert_eq!(amounts(&mut gate, 63 * SECOND), [5_000]);
}

/// What was configured is a ceiling, and is not looked for; what was not is.
#[test]
fn only_what_was_not_configured_is_found() {
    let rates = vec![(Requests, support::rate(60, MINUTE))];
    let config = Config { rates, discover: Some(Provider::OpenAi), ..Config::default() };
    let mut gate: Gate<()> = Gate::new(config, 0);
    hear(&mut gate, SECOND, 500, 499);
    assert_eq!(amounts(&mut gate, SECOND), [60]);
    let pairs: [(&[u8], &[u8]); 2] =
        [(b"x-ratelimit-limit-tokens", b"30000"), (b"x-ratelimit-remaining-tokens", b"29000")];
    let reading = read(Provider::OpenAi, 200, Headers::new(&pairs), b"{}", clock(SECOND));
    gate.observe(2 * SECOND, &reading, Some(SECOND), &mut Vec::new());
    assert_eq!(amounts(&mut gate, 2 * SECOND), [60, 30_000]);
    // What is updated by hand is configured from then on.
    gate.update(3 * SECOND, Tokens, &[support::rate(90_000, MINUTE)], &mut Vec::new());
    gate.observe(4 * SECOND, &reading, Some(3 * SECOND), &mut Vec::new());
    assert_eq!(amounts(&mut gate, 4 * SECOND), [60, 30_000]); // the lower of both, as ever
}

/// Of an organization's and a project's quota the smaller one counts, with its own count of what is left.
#[test]
fn of_several_counters_the_smallest_counts() {
    for rates in [vec![], vec![(Tokens, support::rate(500_000, MINUTE))]] {
        let mut gate: Gate<()> = Gate::new(Config { rates, discover: Some(Provider::OpenAi), ..Config::default() }, 0);
        let pairs: [(&[u8], &[u8]); 4] = [
            (b"x-ratelimit-limit-project-tokens", b"100000"),
            (b"x-ratelimit-remaining-project-tokens", b"99000"),
            (b"x-ratelimit-limit-tokens", b"800000"),
            (b"x-ratelimit-remaining-tokens", b"100"),
        ];
        let reading = read(Provider::OpenAi, 200, Headers::new(&pairs), b"{}", clock(SECOND));
        for second in 1..5 {
            gate.observe(second * SECOND, &reading, Some(second * SECOND), &mut Vec::new());
            let tokens = gate.levels(second * SECOND).into_iter().find(|level| level.dimension == Tokens).unwrap();
            assert_eq!(tokens.rate.amount(), 100_000);
        }
        assert_eq!(gate.speed(), 1_000);
    }
}

/// A limit of a day that was configured says nothing of how fast it may be used: that is found.
#[test]
fn a_limit_of_a_day_leaves_the_pace_to_be_found() {
    let rates = vec![(Requests, support::rate(14_400, DAY))];
    let config = Config { rates, discover: Some(Provider::OpenAi), ..Config::default() };
    let mut gate: Gate<()> = Gate::new(config, 0);
    assert_eq!(amounts(&mut gate, 0), [14_400, 20]);
    hear(&mut gate, SECOND, 500, 499);
    assert_eq!(amounts(&mut gate, SECOND), [14_400, 500]);
}

/// A call that is larger than a limit that was only tried is no fault of the call.
#[test]
fn a_tried_limit_gives_way_and_a_told_one_does_not() {
    let mut gate: Gate<()> = Gate::new(Config { discover: Some(Provider::Bedrock), ..Config::default() }, 0);
    let mut settled = Vec::new();
    let pairs: [(&[u8], &[u8]); 1] = [(b"x-amzn-errortype", b"ThrottlingException")];
    let body = br#"{"message":"Too many tokens, please wait before trying again."}"#;
    let reading = read(Provider::Bedrock, 429, Headers::new(&pairs), body, clock(0));
    gate.observe(SECOND, &reading, Some(0), &mut settled);
    assert_eq!(amounts(&mut gate, SECOND), [20, 1_000]);
    let large = Request { cost: support::tokens(100_000), ..Request::default() };
    assert!(!matches!(gate.admit(2 * SECOND, &large, &mut settled), Admission::Refused(_)));
    assert_eq!(amounts(&mut gate, 2 * SECOND), [20, 100_000]);

    let mut gate: Gate<()> = Gate::new(Config { discover: Some(Provider::OpenAi), ..Config::default() }, 0);
    let pairs: [(&[u8], &[u8]); 1] = [(b"x-ratelimit-limit-tokens", b"30000")];
    let reading = read(Provider::OpenAi, 200, Headers::new(&pairs), b"{}", clock(0));
    gate.observe(SECOND, &reading, Some(0), &mut settled);
    assert!(matches!(gate.admit(2 * SECOND, &large, &mut settled), Admission::Refused(_)));
}

/// What a hostile or broken server may say.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        (0_u64..2_000).prop_map(|number| number.to_string()),
        any::<u64>().prop_map(|number| number.to_string()),
        Just("-1".to_owned()),
        Just("1e9".to_owned()),
        Just("172.799999ms".to_owned()),
        Just("6m0s".to_owned()),
    ]
}

fn header() -> impl Strategy<Value = (String, String)> {
    let field = prop_oneof![Just("limit"), Just("remaining"), Just("reset"), Just("renewalperiod")];
    let counter = prop_oneof![
        Just("requests"),
        Just("tokens"),
        Just("project-tokens"),
        Just("input-tokens"),
        Just("tokens-month"),
        Just("req-second"),
        Just("requests-day"),
    ];
    (field, counter, number()).prop_map(|(field, counter, value)| (format!("x-ratelimit-{field}-{counter}"), value))
}

proptest! {
    #![proptest_config(cases(400))]

    /// Whatever is told, nothing panics, every call is answered, and no call is refused for a limit that was only tried.
    #[test]
    fn whatever_is_told_the_gate_goes_on(
        provider in (0..Provider::ALL.len()).prop_map(|place| Provider::ALL[place]),
        steps in prop::collection::vec(
            (prop::collection::vec(header(), 0..6), 0_u8..6, 0..20 * SECOND, 0_u64..1 << 40),
            1..40,
        ),
    ) {
        let mut gate: Gate<()> = Gate::new(Config { discover: Some(provider), ..Config::default() }, 0);
        let (mut now, mut settled) = (0, Vec::new());
        for (headers, kind, passed, tokens) in steps {
            let cost = Cost { requests: 1, tokens, input_tokens: tokens / 2, output_tokens: tokens / 2 };
            if let Admission::Granted(grant) = gate.admit(now, &Request { cost, ..Request::default() }, &mut settled) {
                gate.release(now, &grant);
            }
            let (status, body) = match kind {
                0 => (429, r#"{"error":{"message":"Rate limit reached on tokens per min (TPM): Limit 10, Used 9, Requested 2.","code":"rate_limit_exceeded"}}"#),
                1 => (429, r#"{"message":"Too many tokens, please wait before trying again."}"#),
                2 => (429, ""),
                3 => (529, ""),
                _ => (200, "{}"),
            };
            let pairs: Vec<_> = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            let reading = read(provider, status, Headers::new(&pairs), body.as_bytes(), clock(now));
            gate.observe(now + passed, &reading, Some(now), &mut settled);
            now += passed;
            gate.pump(now, &mut settled);
            for level in gate.levels(now) {
                prop_assert!(level.rate.amount() >= 1 && level.rate.burst() >= 1);
            }
            for ((), outcome) in settled.drain(..) {
                match outcome {
                    Ok(grant) => gate.release(now, &grant),
                    Err(refusal) => {
                        let limit = match refusal {
                            penstock::gate::Refusal::Oversize(oversize) => Some(oversize.dimension),
                            _ => None,
                        };
                        let told = limit.is_none_or(|dimension| {
                            let levels = gate.levels(now);
                            let mut of = levels.iter().filter(|level| level.dimension == dimension);
                            of.any(|level| gate.origin(dimension, level.rate.period()) == penstock::discovery::Origin::Told)
                        });
                        prop_assert!(told, "{refusal:?}");
                    }
                }
            }
        }
        prop_assert_eq!(gate.in_flight(), 0);
    }
}
