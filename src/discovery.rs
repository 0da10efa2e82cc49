//! Finds out the limits that nobody configured: from what the provider's answers say or, where they never say, by trying.
//!
//! *Told*: most providers name their limits in the headers of every answer, or in the refusal. Such a limit is taken over
//! at once when it is lower than what holds, and once it has been told for a period, and nothing lower, when it is higher:
//! so a limiter of two models runs at the limits of the smaller one.
//!
//! *Tried*: until a limit on requests is told, calls leave slowly. Where none is told, their rate doubles, every four
//! seconds or round trips in which calls wait, up to the first refusal (as TCP's slow start does); then it falls a little
//! below what the provider took in the minute before. The rate that was refused is remembered as a ceiling: the rate rises
//! to just below it, stays there, and goes beyond only now and then, to see whether the limit is still the same (as CUBIC
//! does: Ha, Rhee and Xu, 2008); each time that it is, the next time is twice as far away. A bucket takes more than its limit
//! until it is empty; what it takes from there to the next refusal is the limit.

use std::time::Duration;

use crate::clock::{Nanos, SECOND};
use crate::cost::{Cost, Dimension};
use crate::ledger::{Counted, Ledger, Oversize};
use crate::limits::Limits;
use crate::provider::profile::{Enforcement, Reservation};
use crate::provider::{Kind, Provider, Reading};
use crate::rate::Rate;

const MINUTE: Nanos = 60 * SECOND;
const HOUR: Nanos = 60 * MINUTE;
/// The period of a limit that names none, as of most.
const USUAL_PERIOD: Nanos = MINUTE;
/// A period that was solved from the numbers of an unknown provider is taken for its period only if all answers of so long,
/// and so many, solve to it: the numbers of a window that starts anew solve to any for a moment.
const SURE: (Nanos, u32) = (3 * SECOND, 5);
/// What leaves before the first answer: so many calls a minute, so many of them at once.
const FIRST: u64 = 20;
const FIRST_BURST: u64 = 2;
/// Tried rates stay between these, per minute: of requests, and of tokens.
const LEAST: (u64, u64) = (3, 1_000);
const MOST: (u64, u64) = (1_000_000, 10_000_000_000);
/// How long a rate doubles for, at the least, before it does so again.
const DOUBLES: Nanos = 4 * SECOND;
/// By how much a rate falls below what was taken before a refusal, in thousandths: the first time, when it had doubled and
/// may be far above; soon after the last time, when it did not fall far enough; and otherwise.
const FALLS: (u64, u64, u64) = (100, 50, 30);
/// A refusal so soon after the last one says that the rate did not fall far enough.
const SOON: Nanos = 2 * MINUTE;
/// How long nothing leaves while there are only refusals, doubled each time.
const HOLD: Nanos = SECOND;
/// The longest such hold is this power of two of it.
const LONGEST_HOLD: u32 = 4;
/// How often a rate rises by how much, in per cent, once it was refused.
const RISE: (Nanos, u64) = (15 * SECOND, 1);
/// Up to which share of the rate that was refused it does, in thousandths.
const BELOW: u64 = 980;
/// How long it stays there before it goes beyond, doubled each time that it is refused where it was before.
const STAYS: Nanos = 2 * MINUTE;
/// The longest it stays is this power of two of it: an hour.
const LONGEST_STAY: u32 = 5;
/// How often it rises beyond: a window of a minute is to be over before the next step.
const BEYOND: Nanos = MINUTE;
/// What left between two refusals, so far apart, is what flowed in: a bucket was empty at both. Where that is much less than
/// what left in the minute before, in thousandths of it, something else was the matter.
const MEASURED: (Nanos, u64) = (10 * SECOND, 800);
/// Two rates that were refused are the same limit if they differ by no more than one part in so many.
const SAME: u64 = 20;

/// How a rate came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Somebody configured it.
    Configured,
    /// The provider named it.
    Told,
    /// It is what the provider has taken so far.
    Tried,
}

impl Origin {
    /// The name used in numbers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Told => "told",
            Self::Tried => "tried",
        }
    }
}

/// What left in the last minute, second by second.
#[derive(Clone, Debug)]
struct Sent {
    seconds: [Cost; 60],
    last: u64,
    /// All that ever left.
    ever: Cost,
}

impl Default for Sent {
    fn default() -> Self {
        Self { seconds: [Cost::default(); 60], last: 0, ever: Cost::default() }
    }
}

impl Sent {
    fn turn(&mut self, now: Nanos) {
        let second = now / SECOND;
        let passed = second.saturating_sub(self.last).min(60);
        for back in 0..passed {
            self.seconds[Self::place(second - back)] = Cost::default();
        }
        self.last = self.last.max(second);
    }

    #[allow(clippy::cast_possible_truncation)] // below 60
    fn place(second: u64) -> usize {
        (second % 60) as usize
    }

    fn add(&mut self, cost: &Cost, now: Nanos) {
        self.turn(now);
        let place = Self::place(self.last);
        self.seconds[place] = self.seconds[place].plus(*cost);
        self.ever = self.ever.plus(*cost);
    }

    fn sum(&mut self, dimension: Dimension, now: Nanos) -> u64 {
        self.turn(now);
        self.seconds.iter().fold(0, |sum: u64, cost| sum.saturating_add(cost.get(dimension)))
    }
}

/// A rate that is found by trying.
#[derive(Clone, Copy, Debug)]
struct Tried {
    dimension: Dimension,
    amount: u64,
    /// When it last changed: answers to calls that left before say nothing about it.
    changed: Nanos,
    /// When it was last refused, if ever.
    refused: Option<Nanos>,
    /// How often in a row.
    failures: u32,
    /// The rate that was refused last.
    ceiling: Option<Ceiling>,
    /// The one before it, beyond which the rate rose.
    passed: Option<Ceiling>,
    /// When it fell last, and what had left by then.
    fell: Option<(Nanos, u64)>,
}

/// A rate that was refused.
#[derive(Clone, Copy, Debug)]
struct Ceiling {
    amount: u64,
    /// When the rate fell below it.
    since: Nanos,
    /// How often in a row it was found at the same place.
    found: u32,
}

impl Tried {
    fn new(dimension: Dimension, amount: u64, changed: Nanos) -> Self {
        Self { dimension, amount, changed, refused: None, failures: 0, ceiling: None, passed: None, fell: None }
    }

    /// By how much it rises next, and how long after the last change; nothing while it stays below the ceiling.
    fn step(&self, now: Nanos) -> Option<(Nanos, u64)> {
        if self.refused.is_none() {
            return Some((DOUBLES, self.amount));
        }
        let more = (self.amount / 100).max(1) * RISE.1;
        let Some(ceiling) = self.ceiling else { return Some((RISE.0, more)) };
        let below = ceiling.amount.saturating_sub(parts(ceiling.amount, 1_000 - BELOW));
        if self.amount < below {
            return Some((RISE.0, more.min(below - self.amount)));
        }
        let stays = STAYS << ceiling.found.min(LONGEST_STAY);
        (now >= ceiling.since.saturating_add(stays)).then_some((BEYOND, more))
    }

    /// It was refused, when the provider had `taken` so much in the minute before, and so much had left for `ever`.
    fn fall(&mut self, taken: u64, ever: u64, least: u64, now: Nanos) {
        // Of one that ran at its rate, what was taken is the rate but for rounding.
        let ran = self.amount.abs_diff(taken) <= self.amount / SAME;
        let taken = if ran { self.amount } else { taken.clamp(least, self.amount.max(least)) };
        let soon = self.ceiling.is_some_and(|ceiling| now < ceiling.since.saturating_add(SOON));
        let measured = self.measured(ever, now).filter(|flow| soon && *flow >= parts(taken, MEASURED.1));
        let taken = measured.map_or(taken, |flow| flow.clamp(least, taken.max(least)));
        let part = match (self.ceiling, soon) {
            (None, _) => FALLS.0,
            (_, true) => FALLS.1,
            (_, false) => FALLS.2,
        };
        let same = |ceiling: &Ceiling| ceiling.amount.abs_diff(taken) <= ceiling.amount / SAME;
        let found = match (self.passed.filter(same), self.ceiling) {
            // It was passed for as long as a bucket lasted.
            (Some(passed), _) if soon => passed.found.saturating_add(1),
            (_, Some(ceiling)) if soon => ceiling.found,
            (_, Some(ceiling)) if same(&ceiling) => ceiling.found.saturating_add(1),
            _ => 0,
        };
        if soon {
            self.passed = self.passed.filter(|passed| !same(passed));
        }
        self.ceiling = Some(Ceiling { amount: taken, since: now, found });
        self.amount = taken.saturating_sub(parts(taken, part)).max(least);
        self.changed = now;
        self.fell = Some((now, ever));
    }

    /// What has left in a minute since it fell last, if that can be told.
    fn measured(&self, ever: u64, now: Nanos) -> Option<u64> {
        let (since, before) = self.fell?;
        let passed = now.checked_sub(since).filter(|passed| *passed >= MEASURED.0)?;
        let flow = u128::from(ever.saturating_sub(before)) * u128::from(MINUTE) / u128::from(passed);
        u64::try_from(flow).ok()
    }

    /// Another process has tried it: what that one met, this one need not meet as well.
    fn adopt(&mut self, rate: &Rate, now: Nanos) {
        let (amount, before) = (rate.amount(), self.amount);
        if amount == before {
            return;
        }
        // The burst is small until there was a refusal.
        if amount < before || rate.burst() > FIRST_BURST {
            self.refused = self.refused.or(Some(now));
        }
        if amount < before {
            self.ceiling = Some(Ceiling { amount: before, since: now, found: 0 });
        }
        (self.amount, self.changed) = (amount, now);
    }

    /// It rose.
    fn rise(&mut self, more: u64, most: u64, now: Nanos) {
        self.amount = self.amount.saturating_add(more).min(most);
        self.changed = now;
        if self.ceiling.is_some_and(|ceiling| self.amount > ceiling.amount.saturating_add(ceiling.amount / SAME)) {
            self.passed = self.ceiling.take(); // the limit is another now, or a bucket
        }
    }
}

/// So many thousandths of an amount, at least 1.
fn parts(amount: u64, thousandths: u64) -> u64 {
    u64::try_from(u128::from(amount) * u128::from(thousandths) / 1_000).unwrap_or(u64::MAX).max(1)
}

/// A limit that was told.
#[derive(Clone, Copy, Debug)]
struct Told {
    dimension: Dimension,
    period: Nanos,
    amount: u64,
    /// When the limit was last told to be as low as this.
    heard: Nanos,
}

/// What the numbers of an unknown provider solve to.
#[derive(Clone, Copy, Debug)]
struct Solved {
    dimension: Dimension,
    period: Option<Nanos>,
    since: Nanos,
    answers: u32,
}

/// What came of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Heeded {
    /// Whether a rate is another now.
    pub(crate) changed: bool,
    /// What is held back, and until when; then one call goes first.
    pub(crate) held: Option<Held>,
    /// What the provider counts in the present period of rates that are new here.
    pub(crate) counted: Vec<Counted>,
}

/// A dimension, and until when nothing of it should leave.
pub(crate) type Held = (Dimension, Nanos);

/// The limits that a gate finds out.
#[derive(Clone, Debug)]
pub struct Discovery {
    provider: Provider,
    /// The dimensions whose pace was not configured.
    open: Vec<Dimension>,
    /// What was configured of them: limits of an hour or more.
    configured: Vec<(Dimension, Rate)>,
    told: Vec<Told>,
    tried: Vec<Tried>,
    solved: Vec<Solved>,
    sent: Sent,
    /// How many processes share what is found, this one included, each of which sees its own calls alone.
    sharers: u64,
}

impl Discovery {
    /// Finds out the limits of `provider` on those dimensions that `rates` say nothing about.
    pub fn new(provider: Provider, rates: &[(Dimension, Rate)]) -> Self {
        // A limit of a day says nothing of how fast it may be used up.
        let paces = |of: Dimension| rates.iter().any(|(dimension, rate)| *dimension == of && rate.period() < HOUR);
        let open: Vec<_> = Dimension::ALL.into_iter().filter(|dimension| !paces(*dimension)).collect();
        let configured = rates.iter().filter(|(dimension, _)| open.contains(dimension)).copied().collect();
        let (told, tried, solved) = (Vec::new(), Vec::new(), Vec::new());
        Self { provider, open, configured, told, tried, solved, sent: Sent::default(), sharers: 1 }
    }

    /// What finds out the limits of a provider, if there is one; `rates` is added what to begin with.
    pub(crate) fn of(rates: &mut Vec<(Dimension, Rate)>, provider: Option<Provider>, now: Nanos) -> Option<Box<Self>> {
        let mut discovery = Box::new(Self::new(provider?, rates));
        rates.extend(discovery.begin(now));
        Some(discovery)
    }

    /// The rate to begin with: slow, until an answer has come. None where calls queue at the provider.
    pub fn begin(&mut self, now: Nanos) -> Option<(Dimension, Rate)> {
        let queues = self.provider.profile().enforcement == Enforcement::Queue;
        if queues || !self.open.contains(&Dimension::Requests) {
            return None;
        }
        self.tried.push(Tried::new(Dimension::Requests, FIRST, now));
        self.rates(Dimension::Requests).pop().map(|rate| (Dimension::Requests, rate))
    }

    /// The dimensions whose limits are found out.
    pub(crate) fn open(&self) -> &[Dimension] {
        &self.open
    }

    /// So many processes share what is found, of which each sees its own calls alone.
    pub(crate) fn share_with(&mut self, processes: u64) {
        self.sharers = processes.max(1);
    }

    /// Goes on with what another process has found out, or was given.
    pub(crate) fn adopt_from(&mut self, limits: &Limits, now: Nanos) {
        for dimension in Dimension::ALL {
            if limits.owned.has(dimension) {
                self.configure(dimension);
            }
            if !self.open.contains(&dimension) {
                continue;
            }
            for rate in limits.of(dimension) {
                let (period, amount) = (rate.period(), rate.amount());
                let told = self.told.iter_mut().find(|told| (told.dimension, told.period) == (dimension, period));
                match told {
                    Some(told) if told.amount != amount => (told.amount, told.heard) = (amount, now),
                    None if limits.told.has(dimension) => {
                        self.told.push(Told { dimension, period, amount, heard: now });
                    }
                    _ => {}
                }
                if let Some(tried) = self.tried.iter_mut().find(|tried| tried.dimension == dimension)
                    && period == MINUTE
                {
                    tried.adopt(&rate, now);
                }
            }
        }
    }

    /// Whether the provider counts input tokens and no others.
    pub(crate) fn counts_input_alone(&self) -> bool {
        self.provider.profile().reservation == Reservation::TextOnly
    }

    /// How the rate of a dimension and period came to be.
    pub fn origin(&self, dimension: Dimension, period: Nanos) -> Origin {
        let is_configured = self.configured.iter().any(|(of, rate)| (*of, rate.period()) == (dimension, period));
        let is_told = self.told.iter().any(|told| (told.dimension, told.period) == (dimension, period));
        if is_configured || !self.open.contains(&dimension) {
            Origin::Configured
        } else if is_told {
            Origin::Told
        } else {
            Origin::Tried
        }
    }

    /// A call leaves.
    pub(crate) fn sent(&mut self, cost: &Cost, now: Nanos) {
        self.sent.add(cost, now);
    }

    /// The limits of `dimension` were configured: they are no longer looked for.
    pub(crate) fn configure(&mut self, dimension: Dimension) {
        self.open.retain(|open| *open != dimension);
        self.told.retain(|told| told.dimension != dimension);
        self.tried.retain(|tried| tried.dimension != dimension);
    }

    /// A call costs more than a limit. If that was only tried, it gives way.
    pub(crate) fn stretch(&mut self, oversize: &Oversize, ledger: &mut Ledger, now: Nanos) -> bool {
        let Some(tried) = self.tried.iter_mut().find(|tried| tried.dimension == oversize.dimension) else {
            return false;
        };
        if tried.amount >= oversize.cost {
            return false;
        }
        (tried.amount, tried.ceiling) = (oversize.cost, None);
        self.change(oversize.dimension, ledger, now);
        true
    }

    /// Takes in an answer to a call that left at `sent_at`; `busy` says whether others wait to leave.
    pub(crate) fn heed(
        &mut self,
        ledger: &mut Ledger,
        reading: &Reading,
        sent_at: Nanos,
        now: Nanos,
        busy: bool,
    ) -> Heeded {
        let mut changed: Vec<Dimension> = Vec::new();
        let mut heard: Vec<(Dimension, Nanos, u64, Option<u64>)> = Vec::new();
        for limit in &reading.limits {
            if !self.open.contains(&limit.dimension) {
                continue;
            }
            let Some(amount) = limit.limit.filter(|amount| (1..=Rate::MAX_AMOUNT).contains(amount)) else { continue };
            let period = limit.window.and_then(|window| Nanos::try_from(window.as_nanos()).ok());
            // Only a bucket as large as the limit solves to its period, and who knows what speaks in its words.
            let is_doubtful = limit.solved || (reading.provider == Provider::Unknown && period.is_none());
            let period = if is_doubtful { self.solve(limit.dimension, period, now) } else { period };
            let usual =
                || reading.provider.profile().window(limit.dimension).unwrap_or(Duration::from_nanos(USUAL_PERIOD));
            let period = period.or_else(|| Nanos::try_from(usual().as_nanos()).ok()).unwrap_or(USUAL_PERIOD);
            // Of several counters (a key's, a team's, a project's) the smallest counts.
            match heard.iter_mut().find(|(dimension, known, ..)| (*dimension, *known) == (limit.dimension, period)) {
                Some(known) if known.2 <= amount => {}
                Some(known) => (known.2, known.3) = (amount, limit.remaining),
                None => heard.push((limit.dimension, period, amount, limit.remaining)),
            }
        }
        let mut counted = Vec::new();
        for &(dimension, period, amount, remaining) in &heard {
            if self.hear(dimension, period, amount, now) {
                changed.push(dimension);
                self.change(dimension, ledger, now);
                if let Some(remaining) = remaining {
                    let used = amount.saturating_sub(remaining);
                    ledger.used_before(dimension, period, used, now);
                    counted.push(Counted { dimension, period, used });
                }
            }
        }
        let mut held = None;
        match reading.verdict.kind {
            Kind::Ok if self.tried.iter().all(|tried| sent_at < tried.changed || now < tried.changed + DOUBLES) => {
                self.succeed(sent_at);
            }
            Kind::Ok => {
                self.adopt(ledger);
                self.succeed(sent_at);
                if busy {
                    self.rise(sent_at, now, &mut changed);
                }
            }
            Kind::Throttled => {
                self.adopt(ledger);
                held = self.fall(reading, sent_at, now, &mut changed);
            }
            _ => {}
        }
        for dimension in &changed {
            self.change(*dimension, ledger, now);
        }
        Heeded { changed: !changed.is_empty(), held, counted }
    }

    /// The period of an unknown provider's limit, once all that it says for a while solves to the same.
    fn solve(&mut self, dimension: Dimension, period: Option<Nanos>, now: Nanos) -> Option<Nanos> {
        let Some(solved) = self.solved.iter_mut().find(|solved| solved.dimension == dimension) else {
            self.solved.push(Solved { dimension, period, since: now, answers: 1 });
            return None;
        };
        if solved.period != period {
            (solved.period, solved.since, solved.answers) = (period, now, 0);
        }
        solved.answers = solved.answers.saturating_add(1);
        solved.period.filter(|_| now >= solved.since.saturating_add(SURE.0) && solved.answers >= SURE.1)
    }

    /// Takes in a limit that was told; gives whether it is news.
    fn hear(&mut self, dimension: Dimension, period: Nanos, amount: u64, now: Nanos) -> bool {
        let known = self.told.iter_mut().find(|told| (told.dimension, told.period) == (dimension, period));
        let Some(told) = known else {
            self.told.push(Told { dimension, period, amount, heard: now });
            return true;
        };
        let raised = amount > told.amount && now < told.heard.saturating_add(told.period.min(MINUTE));
        if raised {
            return false;
        }
        told.heard = now;
        std::mem::replace(&mut told.amount, amount) != amount
    }

    /// Whether a limit on `dimension` was told that holds from minute to minute.
    pub(crate) fn is_told(&self, dimension: Dimension) -> bool {
        self.told.iter().any(|told| told.dimension == dimension && told.period <= MINUTE)
    }

    fn succeed(&mut self, sent_at: Nanos) {
        for tried in self.tried.iter_mut().filter(|tried| tried.refused.is_none_or(|refused| sent_at >= refused)) {
            tried.failures = 0;
        }
    }

    fn rise(&mut self, sent_at: Nanos, now: Nanos, changed: &mut Vec<Dimension>) {
        let told: Vec<_> = Dimension::ALL.into_iter().filter(|dimension| self.is_told(*dimension)).collect();
        let open = self.tried.iter_mut().filter(|tried| sent_at >= tried.changed && !told.contains(&tried.dimension));
        for tried in open {
            let Some((pause, more)) = tried.step(now) else { continue };
            if now < tried.changed.saturating_add(pause) {
                continue;
            }
            tried.rise(more, if tried.dimension == Dimension::Requests { MOST.0 } else { MOST.1 }, now);
            changed.push(tried.dimension);
        }
    }

    /// Gives what is held back, and until when, if the provider did not say so itself.
    fn fall(&mut self, reading: &Reading, sent_at: Nanos, now: Nanos, changed: &mut Vec<Dimension>) -> Option<Held> {
        let dimension = reading.verdict.dimension.unwrap_or(Dimension::Requests);
        if !self.open.contains(&dimension) || self.is_told(dimension) {
            return None;
        }
        let taken = self.sent.sum(dimension, now).saturating_mul(self.sharers);
        let ever = self.sent.ever.get(dimension).saturating_mul(self.sharers);
        let least = if dimension == Dimension::Requests { LEAST.0 } else { LEAST.1 };
        let place = self.tried.iter().position(|tried| tried.dimension == dimension).unwrap_or_else(|| {
            // Until now nothing held it back.
            self.tried.push(Tried::new(dimension, taken.max(least), 0));
            self.tried.len() - 1
        });
        let tried = self.tried.get_mut(place)?;
        if tried.refused.is_some_and(|refused| sent_at < refused) {
            return None; // one of those that left together
        }
        tried.refused = Some(now);
        tried.failures = tried.failures.saturating_add(1);
        if tried.failures > 1 {
            // A window that is full stays so however slowly calls come: it is the hold that grows.
            return Some((dimension, now.saturating_add(HOLD << tried.failures.min(LONGEST_HOLD))));
        }
        tried.fall(taken, ever, least, now);
        changed.push(dimension);
        Some((dimension, now.saturating_add(HOLD)))
    }

    /// The rates of a dimension as far as they are found.
    fn rates(&self, dimension: Dimension) -> Vec<Rate> {
        let profile = self.provider.profile();
        let configured = self.configured.iter().filter(|(of, _)| *of == dimension).map(|(_, rate)| *rate);
        let mut rates: Vec<Rate> = configured.collect();
        for told in self.told.iter().filter(|told| told.dimension == dimension) {
            // Of what was configured the ledger takes the lower.
            if rates.iter().all(|rate| rate.period() != told.period) {
                rates.extend(profile.rate(told.dimension, told.amount, told.period));
            }
        }
        if !self.is_told(dimension) {
            let tried = self.tried.iter().find(|tried| tried.dimension == dimension);
            rates.extend(tried.and_then(|tried| {
                let rate = Rate::new(tried.amount, MINUTE).ok()?;
                let burst = match dimension {
                    // Whatever leaves at once when the limit is met is refused at once.
                    Dimension::Requests if tried.refused.is_none() => FIRST_BURST,
                    Dimension::Requests => rate.burst().max(FIRST_BURST),
                    _ => rate.burst().max(tried.amount / 6),
                };
                rate.with_burst(burst.min(tried.amount)).ok()
            }));
        }
        rates
    }

    /// Others may have found out more, if the ledger is shared.
    fn adopt(&mut self, ledger: &Ledger) {
        for tried in &mut self.tried {
            let of = ledger.configured().into_iter().filter(|(dimension, _)| *dimension == tried.dimension);
            let tries = of.map(|(_, rate)| rate).find(|rate| rate.period() == MINUTE);
            tried.amount = tries.map_or(tried.amount, |rate| rate.amount());
        }
    }

    fn change(&self, dimension: Dimension, ledger: &mut Ledger, now: Nanos) {
        let rates = self.rates(dimension);
        let mut known: Vec<_> = ledger.configured();
        known.retain(|(of, _)| *of == dimension);
        if known.len() != rates.len() || known.iter().any(|(_, rate)| !rates.contains(rate)) {
            ledger.update(dimension, &rates, now);
        }
    }
}
