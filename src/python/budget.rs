//! A hard stop for a block: how many calls, tokens and seconds all permits inside it may use together.
//!
//! A context variable holds the budgets that code runs inside, the innermost of them. What a block has started stays bound
//! when the block is over: an agent that outlives it must not run on for free.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::clock::{self, Nanos, SECOND};
use crate::cost::Cost;
use crate::gate::Refusal;
use crate::rate::Seconds;

use super::cached::{Cached, intern};
use super::convert::{given, optional_seconds, to_seconds, whole};
use super::errors::{budget_exceeded, refused};
use super::permit::Permit;

/// How many budgets there are. While there are none, no permit need ask.
static ALIVE: AtomicUsize = AtomicUsize::new(0);
/// How many of them count tokens.
static COUNTING: AtomicUsize = AtomicUsize::new(0);

/// What one block may use, and what it has used: of `penstock.budget`.
#[pyclass(frozen, module = "penstock._core")]
pub struct Budget {
    most_calls: Option<u64>,
    most_tokens: Option<u64>,
    period: Option<Nanos>,
    began: Nanos,
    calls: AtomicU64,
    tokens: AtomicU64,
    outer: Option<Py<Budget>>,
    /// Whether its block ended where it could not be left: code there must not stay bound for ever.
    void: AtomicBool,
    /// What the last call that it stopped was told: the arguments of `BudgetExceeded`.
    refused: Mutex<Option<Py<PyAny>>>,
}

impl Budget {
    /// The innermost budget that this code runs inside.
    #[cold]
    fn innermost(py: Python<'_>) -> PyResult<Option<Py<Self>>> {
        static GET: Cached<Py<PyAny>> = Cached::new();
        let get = GET.get_or_make(|| {
            let variable = py.import(intern!(py, "penstock.budgets"))?.getattr(intern!(py, "INSIDE"))?;
            Ok(variable.getattr(intern!(py, "get"))?.unbind())
        })?;
        let mut budget: Option<Py<Self>> = get.bind(py).call0()?.extract()?;
        while let Some(inner) = &budget
            && inner.get().void.load(Ordering::Relaxed)
        {
            budget = inner.get().outer.as_ref().map(|outer| outer.clone_ref(py));
        }
        Ok(budget)
    }

    fn elapsed(&self, now: Nanos) -> Nanos {
        now.saturating_sub(self.began)
    }

    /// Takes so much, or says of what there is too little; then nothing is taken.
    fn take(&self, calls: u64, tokens: u64, now: Nanos) -> Result<(), Short> {
        if let Some(period) = self.period
            && self.elapsed(now) >= period
        {
            return Err(Short::Seconds);
        }
        // A call of which nobody knows what it costs needs at least something to be left.
        let needed = tokens.max(u64::from(calls > 0));
        if let Some(most) = self.most_tokens
            && self.tokens.load(Ordering::Relaxed).saturating_add(needed) > most
        {
            return Err(Short::Tokens(tokens));
        }
        let before = self.calls.fetch_add(calls, Ordering::Relaxed);
        if self.most_calls.is_some_and(|most| before.saturating_add(calls) > most) {
            self.calls.fetch_sub(calls, Ordering::Relaxed);
            return Err(Short::Calls(calls));
        }
        self.tokens.fetch_add(tokens, Ordering::Relaxed);
        Ok(())
    }

    fn exceeded(&self, py: Python<'_>, short: Short, now: Nanos) -> PyErr {
        let of = |spent: u64, limit: Option<u64>, what: &str, needed: u64| {
            let limit = limit.unwrap_or_default();
            let message =
                format!("the budget of {limit} {what} is used up: {spent} are spent, and the next call needs {needed}");
            self.refuse(py, (message, what, spent, limit))
        };
        match short {
            Short::Calls(needed) => of(self.calls.load(Ordering::Relaxed), self.most_calls, "calls", needed),
            Short::Tokens(needed) => of(self.tokens.load(Ordering::Relaxed), self.most_tokens, "tokens", needed),
            Short::Seconds => self.late(py, now, "no call may leave any more"),
        }
    }

    fn late(&self, py: Python<'_>, now: Nanos, why: &str) -> PyErr {
        let (elapsed, limit) = (self.elapsed(now), self.period.unwrap_or_default());
        let shown = Seconds(elapsed.next_multiple_of(SECOND / 1_000));
        let message = format!("the budget of {} seconds is used up: {shown} are over, and {why}", Seconds(limit));
        self.refuse(py, (message, "seconds", to_seconds(elapsed), to_seconds(limit)))
    }

    /// The exception with these arguments, which are kept.
    fn refuse<'py, N>(&self, py: Python<'py>, arguments: (String, &str, N, N)) -> PyErr
    where
        N: IntoPyObject<'py>,
    {
        let arguments: Py<PyTuple> = match arguments.into_pyobject(py) {
            Ok(arguments) => arguments.unbind(),
            Err(error) => return error,
        };
        *self.refused.lock() = Some(arguments.clone_ref(py).into_any());
        budget_exceeded(py, arguments)
    }
}

/// Of what a budget has too little, and how much of it a call needs.
#[derive(Clone, Copy)]
enum Short {
    Calls(u64),
    Tokens(u64),
    Seconds,
}

impl Drop for Budget {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::Relaxed);
        COUNTING.fetch_sub(usize::from(self.most_tokens.is_some()), Ordering::Relaxed);
    }
}

const MOST: u64 = Cost::MAX;

#[pymethods]
impl Budget {
    #[new]
    #[pyo3(signature = (calls=None, tokens=None, seconds=None))]
    fn new(
        py: Python<'_>,
        calls: Option<&Bound<'_, PyAny>>,
        tokens: Option<&Bound<'_, PyAny>>,
        seconds: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let amount = |name, value| given(value).map(|value| whole(name, value, 0, MOST)).transpose();
        let (most_calls, most_tokens) = (amount("calls", calls)?, amount("tokens", tokens)?);
        let period = optional_seconds("seconds", seconds)?;
        let outer = Self::innermost(py)?;
        ALIVE.fetch_add(1, Ordering::Relaxed);
        COUNTING.fetch_add(usize::from(most_tokens.is_some()), Ordering::Relaxed);
        Ok(Self {
            most_calls,
            most_tokens,
            period,
            began: clock::now(),
            calls: AtomicU64::new(0),
            tokens: AtomicU64::new(0),
            outer,
            void: AtomicBool::new(false),
            refused: Mutex::new(None),
        })
    }

    /// How many calls were made inside, those under way and those that wait included.
    #[getter]
    fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// How many tokens they used: what was settled, and the estimates of those that were not.
    #[getter]
    fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }

    /// How many seconds ago the block began.
    #[getter]
    fn seconds(&self) -> f64 {
        to_seconds(self.elapsed(clock::now()))
    }

    /// For `penstock.budgets`: what the last call that it stopped was told, as arguments of `BudgetExceeded`.
    #[getter]
    fn refused(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.refused.lock().as_ref().map(|refused| refused.clone_ref(py))
    }

    /// For `penstock.budgets`: it bounds nothing any more, for whoever still runs inside it.
    fn disown(&self) {
        self.void.store(true, Ordering::Relaxed);
    }

    fn __repr__(&self) -> String {
        let of = |spent: String, most: Option<String>, what: &str| match most {
            Some(most) => format!("{spent} of {most} {what}"),
            None => format!("{spent} {what}"),
        };
        let elapsed = Seconds(self.elapsed(clock::now()).next_multiple_of(SECOND / 1_000));
        format!(
            "<Budget: {}, {}, {}>",
            of(self.calls().to_string(), self.most_calls.map(|most| most.to_string()), "calls"),
            of(self.tokens().to_string(), self.most_tokens.map(|most| most.to_string()), "tokens"),
            of(elapsed.to_string(), self.period.map(|period| Seconds(period).to_string()), "seconds"),
        )
    }
}

/// Whether anybody's budget counts tokens: then the usage of every call is looked for.
#[inline]
pub fn counts_tokens() -> bool {
    COUNTING.load(Ordering::Relaxed) > 0
}

/// For pauses between two attempts: raises what the next attempt would, if the pause outlasts a budget of this code.
pub fn check_pause(py: Python<'_>, pause: Nanos) -> PyResult<()> {
    if ALIVE.load(Ordering::Relaxed) == 0 {
        return Ok(());
    }
    let now = clock::now();
    let mut next = Budget::innermost(py)?;
    while let Some(budget) = next {
        let this = budget.get();
        if this.period.is_some_and(|period| this.elapsed(now).saturating_add(pause) >= period) {
            let pause = Seconds(pause.next_multiple_of(SECOND / 1_000));
            return Err(this.late(py, now, &format!("the next attempt is due in {pause} seconds")));
        }
        next = this.outer.as_ref().map(|outer| outer.clone_ref(py));
    }
    Ok(())
}

/// A call's share of one budget.
struct Share {
    budget: Py<Budget>,
    /// Whether the permit outside of the call's counts here, too: then only what goes beyond that does.
    beyond: bool,
    calls: u64,
    tokens: u64,
}

impl Share {
    /// Replaces what counts here.
    fn set(&mut self, calls: u64, tokens: u64) {
        let budget = self.budget.get();
        let replace = |spent: &AtomicU64, before: u64, after: u64| {
            if after >= before {
                spent.fetch_add(after - before, Ordering::Relaxed);
            } else {
                spent.fetch_sub(before - after, Ordering::Relaxed);
            }
        };
        replace(&budget.calls, self.calls, calls);
        replace(&budget.tokens, self.tokens, tokens);
        (self.calls, self.tokens) = (calls, tokens);
    }
}

/// What a call takes from the budgets that its code runs inside. Dropped before the call has left, it is given back.
pub struct Charge {
    shares: Vec<Share>,
    left: bool,
    /// The budget whose time is over before the call's own time to wait is.
    bound: Option<Py<Budget>>,
}

impl Charge {
    /// Charges a call, which costs `total` and `own` beyond what the permit outside covers, and bounds the time that it
    /// may wait. Nothing is charged when a budget has too little.
    #[inline]
    pub fn new(
        py: Python<'_>,
        total: &Cost,
        own: &Cost,
        outside: Option<&Permit>,
        timeout: &mut Option<Nanos>,
    ) -> PyResult<Option<Box<Self>>> {
        if ALIVE.load(Ordering::Relaxed) == 0 {
            return Ok(None);
        }
        Self::of_budgets(py, total, own, outside, timeout)
    }

    #[cold]
    fn of_budgets(
        py: Python<'_>,
        total: &Cost,
        own: &Cost,
        outside: Option<&Permit>,
        timeout: &mut Option<Nanos>,
    ) -> PyResult<Option<Box<Self>>> {
        let mut next = Budget::innermost(py)?;
        if next.is_none() {
            return Ok(None);
        }
        let now = clock::now();
        let mut charge = Box::new(Self { shares: Vec::new(), left: false, bound: None });
        while let Some(budget) = next {
            let this = budget.get();
            next = this.outer.as_ref().map(|outer| outer.clone_ref(py));
            let beyond = outside.is_some_and(|outside| outside.is_charged_to(&budget));
            let cost = if beyond { own } else { total };
            // Dropped on the way out, the charge gives back what the budgets inside have been charged.
            this.take(cost.requests, cost.tokens, now).map_err(|short| this.exceeded(py, short, now))?;
            if let Some(period) = this.period {
                let left = period.saturating_sub(this.elapsed(now));
                if timeout.is_none_or(|timeout| left < timeout) {
                    *timeout = Some(left);
                    charge.bound = Some(budget.clone_ref(py));
                }
            }
            charge.shares.push(Share { budget, beyond, calls: cost.requests, tokens: cost.tokens });
        }
        Ok(Some(charge))
    }

    /// Replaces what the call costs.
    pub fn set(&mut self, total: &Cost, own: &Cost) {
        for share in &mut self.shares {
            let cost = if share.beyond { own } else { total };
            share.set(cost.requests, cost.tokens);
        }
    }

    /// The call leaves: what it costs is spent.
    pub fn spend(&mut self) {
        self.left = true;
        self.bound = None;
    }

    /// The call never left after all: dropped, it is given back.
    pub fn unspend(&mut self) {
        self.left = false;
    }

    /// Whether that budget is charged.
    pub fn is_to(&self, budget: &Py<Budget>) -> bool {
        self.shares.iter().any(|share| share.budget.is(budget))
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if !self.left {
            self.shares.iter_mut().for_each(|share| share.set(0, 0));
        }
    }
}

/// The exception for a refusal by the limiter of that name, of a call with that charge.
pub fn refused_within(py: Python<'_>, limiter: &str, refusal: &Refusal, charge: Option<&Charge>) -> PyErr {
    match (refusal, charge.and_then(|charge| charge.bound.as_ref())) {
        (Refusal::Timeout(_), Some(budget)) => {
            let why = refused(py, limiter, refusal);
            budget.get().late(py, clock::now(), &why.value(py).to_string())
        }
        _ => refused(py, limiter, refusal),
    }
}
