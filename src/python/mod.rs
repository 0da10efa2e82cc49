//! Thin bindings: convert, call, convert back. What Python must decide is in `python/penstock/`.

mod arguments;
mod budget;
mod cached;
mod convert;
mod driver;
mod ending;
mod errors;
mod event_loop;
mod governed;
mod limiter;
mod memory;
mod nesting;
mod permit;
mod provider;
mod rate;
mod remote;
mod request;
mod retry;
mod scope;
mod store;
mod verdict;
mod waiter;
mod watch;

use pyo3::prelude::*;

/// The compiled core of Penstock. Everything public in it is exported by `penstock` itself.
#[pymodule]
mod _core {
    use pyo3::types::{PyAny, PyModule, PyModuleMethods};

    use super::{Bound, PyResult, Python, pyfunction};

    #[pymodule_export]
    use super::budget::Budget;
    #[pymodule_export]
    use super::governed::{Sent, begin_answer, cost_of, settle_answer};
    #[pymodule_export]
    use super::limiter::Limiter;
    #[pymodule_export]
    use super::memory::{Memory, hash_request};
    #[pymodule_export]
    use super::permit::{Cost, Permit};
    #[pymodule_export]
    use super::provider::{
        Call, UsageFilter, UsageReader, ask_for_usage, is_free, provider_of, provider_rate, read_call,
    };
    #[pymodule_export]
    use super::rate::Rate;
    #[pymodule_export]
    use super::remote::{heard, retire};
    #[pymodule_export]
    use super::retry::{Attempts, RetryBudget, RetryPolicy, next_order};
    #[pymodule_export]
    use super::scope::Scope;
    #[pymodule_export]
    use super::verdict::{Verdict, read_answer};
    #[pymodule_export]
    use super::waiter::{Acquire, Waiter};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // Classes that are not exported are made now, too: see `cached`.
        super::scope::make_classes(module.py());
        super::event_loop::make_classes(module.py());
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }

    /// About how many tokens a text has, told without a tokenizer.
    #[pyfunction]
    fn estimate_tokens(text: &Bound<'_, PyAny>) -> PyResult<u64> {
        let text = super::convert::text("text", text)?;
        Ok(crate::estimate::estimate_tokens(&text))
    }

    /// What a forked child does before it uses a limiter.
    ///
    /// The calls under way and those that wait are the parent's: the child's limiters start with none.
    #[pyfunction]
    fn after_fork(py: Python<'_>) {
        super::driver::after_fork(py);
        super::remote::after_fork();
        super::retry::after_fork();
    }

    /// For `penstock._watching`: lets the calls leave that other processes have set free.
    #[pyfunction]
    fn look(py: Python<'_>) {
        super::watch::look(py);
    }

    /// The process's monotonic clock, in seconds: virtual while frozen.
    #[pyfunction]
    fn clock_now() -> f64 {
        super::convert::to_seconds(crate::clock::now())
    }

    /// For pauses between two attempts: raises `BudgetExceeded` if one of so many seconds outlasts a budget.
    #[pyfunction]
    fn check_pause(py: Python<'_>, seconds: &Bound<'_, super::PyAny>) -> PyResult<()> {
        super::budget::check_pause(py, super::convert::seconds("seconds", seconds)?)
    }

    /// Stops the clock; only `clock_advance` moves it then. For tests.
    #[pyfunction]
    fn clock_freeze() {
        crate::clock::freeze();
    }

    /// Moves a frozen clock forward by so many seconds; without effect on one that runs.
    #[pyfunction]
    fn clock_advance(seconds: &Bound<'_, super::PyAny>) -> PyResult<()> {
        crate::clock::advance(super::convert::seconds("seconds", seconds)?);
        Ok(())
    }

    /// Lets a frozen clock run on from where it stands.
    #[pyfunction]
    fn clock_thaw() {
        crate::clock::thaw();
    }

    /// Whether the clock is frozen.
    #[pyfunction]
    fn clock_frozen() -> bool {
        crate::clock::frozen()
    }
}
