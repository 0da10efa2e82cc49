//! From refusals to the exceptions of `penstock.errors`. Those are Python classes: abi3 cannot derive exceptions in
//! Rust before 3.12.

use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};

use crate::clock::SECOND;
use crate::gate::Refusal;
use crate::ledger::Oversize;
use crate::rate::Seconds;

use super::cached::Cached;
use super::convert::to_seconds;

static ACQUIRE_TIMEOUT: Cached<Py<PyType>> = Cached::new();
static COST_EXCEEDS_LIMIT: Cached<Py<PyType>> = Cached::new();
static QUOTA_EXHAUSTED: Cached<Py<PyType>> = Cached::new();
static BUDGET_EXCEEDED: Cached<Py<PyType>> = Cached::new();
static STORE_UNAVAILABLE: Cached<Py<PyType>> = Cached::new();
static QUEUE_FULL: Cached<Py<PyType>> = Cached::new();

fn raise<A>(py: Python<'_>, class: &Cached<Py<PyType>>, name: &str, args: A) -> PyErr
where
    A: for<'py> pyo3::call::PyCallArgs<'py>,
{
    let class = class.get_or_make(|| Ok(py.import("penstock.errors")?.getattr(name)?.cast_into()?.unbind()));
    let made = class.and_then(|class| class.bind(py).call1(args));
    made.map_or_else(|error| error, PyErr::from_value)
}

/// The exception for a refusal by the limiter of that name.
pub fn refused(py: Python<'_>, limiter: &str, refusal: &Refusal) -> PyErr {
    match refusal {
        Refusal::Oversize(Oversize { dimension, cost, limit }) => {
            let message = format!("{refusal} (limiter {limiter:?})");
            raise(py, &COST_EXCEEDS_LIMIT, "CostExceedsLimit", (message, dimension.name(), *cost, *limit))
        }
        Refusal::Timeout(wait) => {
            let message = if *wait == 0 {
                format!("no permit in time: every slot of limiter {limiter:?} is taken, or others come first")
            } else {
                let wait = Seconds(wait.next_multiple_of(SECOND / 1_000));
                format!("no permit in time: limiter {limiter:?} has room in {wait} seconds at the earliest")
            };
            raise(py, &ACQUIRE_TIMEOUT, "AcquireTimeout", (message, to_seconds(*wait)))
        }
        Refusal::Exhausted(exhausted) => {
            #[allow(clippy::cast_precision_loss)] // milliseconds since 1970 fit
            let resets_at = exhausted.resets_at.map(|at| at as f64 / 1e3);
            let message = format!("{refusal}; limiter {limiter:?} tries one call every 30 seconds until it is back");
            raise(py, &QUOTA_EXHAUSTED, "QuotaExhausted", (message, resets_at))
        }
        Refusal::Store(why) => store_unavailable(py, format!("{why} (limiter {limiter:?})")),
        Refusal::Unavailable(_) => store_unavailable(py, format!("{refusal} (limiter {limiter:?})")),
        Refusal::QueueFull(waiting) => {
            let message = format!("{refusal}; limiter {limiter:?}");
            raise(py, &QUEUE_FULL, "QueueFull", (message, *waiting))
        }
    }
}

/// The exception for a store that is of no use.
pub fn store_unavailable(py: Python<'_>, message: String) -> PyErr {
    raise(py, &STORE_UNAVAILABLE, "StoreUnavailable", (message,))
}

/// The exception for a call that goes beyond a budget.
pub fn budget_exceeded(py: Python<'_>, arguments: Py<PyTuple>) -> PyErr {
    raise(py, &BUDGET_EXCEEDED, "BudgetExceeded", arguments)
}
