//! Retry decisions: the policy, the budget, and how far one call has come.

use std::str::FromStr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBool;

use crate::clock;
use crate::retry::{
    self, Backoff, CallSlot, Decision, Failure, FailureKind, Jitter, Policy, Progress, Random, RetrySlot,
};

use super::convert::{given, one_of, shown, to_seconds};
use super::verdict::Verdict;

/// How often this process is a fork of a fork: what a budget counted before belongs to the parent.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// What a forked child does for its budgets.
pub fn after_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// A place in the order of the process's calls, and of failures that were given up: later than all before.
#[pyfunction]
pub fn next_order() -> u64 {
    static ORDER: AtomicU64 = AtomicU64::new(1);
    ORDER.fetch_add(1, Ordering::Relaxed)
}

fn wrong(error: &retry::InvalidArgument) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn number(name: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    let wrong = || PyTypeError::new_err(format!("{name} must be a number, not {}", shown(value)));
    if value.is_instance_of::<PyBool>() {
        return Err(wrong());
    }
    match value.extract::<f64>() {
        // An int beyond any float: as good as infinite, which the core refuses by name.
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => {
            Ok(if value.lt(0)? { f64::NEG_INFINITY } else { f64::INFINITY })
        }
        number => number.map_err(|_| wrong()),
    }
}

fn jitter(value: &Bound<'_, PyAny>) -> PyResult<Jitter> {
    if value.is_none() {
        return Ok(Jitter::None);
    }
    let name = one_of("jitter", value, &["full", "equal", "decorrelated", "none"])?;
    Jitter::from_str(&name).map_err(|error| wrong(&error))
}

fn count(name: &str, value: &Bound<'_, PyAny>, least: u64) -> PyResult<u32> {
    let number = super::convert::whole(name, value, least, u64::from(u32::MAX))?;
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}

/// The share of calls in flight that may be retries: what keeps retries from flooding a provider that is down.
///
/// `ratio` of the calls in flight, from 0 to 100, but always `minimum`; with `per_minute`, no more than so many retries
/// in a minute. Raises `TypeError` or `ValueError` for an argument that cannot be.
#[pyclass(frozen, module = "penstock")]
pub struct RetryBudget {
    budget: Mutex<(u32, retry::RetryBudget)>,
    ratio: f64,
    minimum: u32,
    per_minute: Option<u32>,
}

impl RetryBudget {
    fn handle(&self) -> retry::RetryBudget {
        let mut held = self.budget.lock();
        let forks = FORKS.load(Ordering::Relaxed);
        if held.0 != forks
            && let Ok(fresh) = retry::RetryBudget::new(self.ratio, self.minimum, self.per_minute)
        {
            *held = (forks, fresh);
        }
        held.1.clone()
    }
}

#[pymethods]
impl RetryBudget {
    #[new]
    #[pyo3(
        signature = (ratio=None, minimum=None, per_minute=None),
        text_signature = "(ratio=0.2, minimum=3, per_minute=None)"
    )]
    fn new(
        ratio: Option<&Bound<'_, PyAny>>,
        minimum: Option<&Bound<'_, PyAny>>,
        per_minute: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let ratio = ratio.map_or(Ok(0.2), |ratio| number("ratio", ratio))?;
        let minimum = minimum.map_or(Ok(3), |minimum| count("minimum", minimum, 0))?;
        let per_minute = given(per_minute).map(|rate| count("per_minute", rate, 1)).transpose()?;
        let budget = retry::RetryBudget::new(ratio, minimum, per_minute).map_err(|error| wrong(&error))?;
        Ok(Self { budget: Mutex::new((FORKS.load(Ordering::Relaxed), budget)), ratio, minimum, per_minute })
    }

    /// A call begins: its first attempt has what it needs.
    ///
    /// `handled` is the exception that is being handled.
    fn begin(&self, handled: Option<&Bound<'_, PyAny>>) -> Attempts {
        let now = clock::now();
        let slot = Some(self.handle().enter(now));
        let call = Mutex::new(Some(Call { progress: Progress::start(now), slot, retry: None, waits: Vec::new() }));
        Attempts { call, order: next_order(), handled: handled.map_or(0, |handled| handled.as_ptr() as usize) }
    }

    /// Calls in flight, retries in flight, retries granted and retries suppressed so far.
    fn account(&self) -> (u32, u32, u64, u64) {
        let account = self.handle().account();
        (account.calls, account.retries, account.granted, account.suppressed)
    }

    fn __repr__(&self) -> String {
        let account = self.handle().account();
        let per_minute = self.per_minute.map_or(String::new(), |rate| format!(", per_minute={rate}"));
        format!(
            "<RetryBudget(ratio={}, minimum={}{per_minute}): {} retries of {} calls in flight, {} suppressed>",
            self.ratio, self.minimum, account.retries, account.calls, account.suppressed
        )
    }
}

/// How often, how late and how spread out a failed call is tried again.
#[pyclass(frozen, module = "penstock._core")]
pub struct RetryPolicy {
    policy: Policy,
    random: Mutex<Random>,
}

#[pymethods]
impl RetryPolicy {
    #[new]
    fn new(
        attempts: &Bound<'_, PyAny>,
        initial: &Bound<'_, PyAny>,
        factor: &Bound<'_, PyAny>,
        max_delay: &Bound<'_, PyAny>,
        jitter: &Bound<'_, PyAny>,
        deadline: Option<&Bound<'_, PyAny>>,
        seed: u64,
    ) -> PyResult<Self> {
        let jitter = self::jitter(jitter)?;
        let (initial, factor) = (number("initial", initial)?, number("factor", factor)?);
        let max_delay = number("max_delay", max_delay)?;
        let backoff = Backoff::new(initial, factor, max_delay, jitter).map_err(|error| wrong(&error))?;
        let deadline = given(deadline).map(|deadline| number("deadline", deadline)).transpose()?;
        let policy = Policy::new(count("attempts", attempts, 1)?, backoff, deadline).map_err(|error| wrong(&error))?;
        Ok(Self { policy, random: Mutex::new(Random::new(seed)) })
    }

    /// What to do after a failed attempt: the seconds to wait and None, or None and the reason to stop.
    ///
    /// `verdict` is what the failure means; None for one that the caller has retried though nothing is known of it.
    /// `wait` is what the caller asks for in seconds; `streamed` whether a part of the answer was seen already; `spread`
    /// whether nothing but chance keeps calls that were told the same wait from returning together.
    fn decide(
        &self,
        attempts: &Attempts,
        verdict: Option<&Verdict>,
        wait: Option<f64>,
        streamed: bool,
        spread: bool,
    ) -> (Option<f64>, Option<String>) {
        let mut failure = verdict.map_or(Failure::new(FailureKind::Transient), Verdict::failure);
        failure.streamed = streamed;
        if let Some(wait) = wait {
            // The provider's word stays a floor. A wait of zero would say as little as none.
            let wait = super::convert::from_seconds(wait).max(1);
            failure.wait = Some(failure.wait.map_or(wait, |stated| stated.max(wait)));
            failure.retryable = true;
        }
        let spread = spread && wait.is_none();
        let policy = if spread { self.policy.with_spread(self.policy.backoff().step(1)) } else { self.policy };
        let mut held = attempts.call.lock();
        let Some(call) = held.as_mut() else { return (None, Some("the call is over".to_owned())) };
        call.retry = None; // the attempt that has just failed gives its place in the budget back
        let decision =
            policy.decide(&call.progress, &failure, clock::now(), &mut self.random.lock(), call.slot.as_ref());
        match decision {
            Decision::Stop(reason) => (None, Some(reason.to_string())),
            Decision::Retry { delay, slot, .. } => {
                call.progress.retried(delay);
                call.retry = slot;
                call.waits.push(to_seconds(delay));
                (Some(to_seconds(delay)), None)
            }
        }
    }

    /// The longest backoff before retry number `retry`, in seconds; the first is 1.
    fn step(&self, retry: u32) -> f64 {
        to_seconds(self.policy.backoff().step(retry))
    }
}

struct Call {
    progress: Progress,
    slot: Option<CallSlot>,
    retry: Option<RetrySlot>,
    waits: Vec<f64>,
}

/// How far one call has come. Dropped or ended, it gives its places in the budget back.
#[pyclass(frozen, module = "penstock._core")]
pub struct Attempts {
    call: Mutex<Option<Call>>,
    /// Its place in the order of calls and of failures given up: an older failure is none of this call's.
    #[pyo3(get)]
    order: u64,
    /// The identity of the exception that was being handled when the call began, 0 for none.
    ///
    /// It is the context of whatever the call raises, and no part of that.
    #[pyo3(get)]
    handled: usize,
}

#[pymethods]
impl Attempts {
    /// The call is over.
    fn end(&self) {
        *self.call.lock() = None;
    }

    /// Attempts made so far, and the seconds waited between them.
    fn told(&self) -> (u32, Vec<f64>) {
        self.call.lock().as_ref().map_or((0, Vec::new()), |call| (call.progress.attempts(), call.waits.clone()))
    }
}
