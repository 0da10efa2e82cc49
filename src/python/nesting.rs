//! Permits inside permits.
//!
//! Each limiter has a context variable that holds the permit which the code of a task tree runs inside. There, a call
//! takes no second slot of that limiter, and the first one is covered by the permit outside: it is charged only for what
//! it costs beyond that.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use pyo3::prelude::*;
use pyo3::types::IntoPyDict;

use super::cached::{Cached, intern};
use super::permit::Permit;

struct Variable {
    object: Py<PyAny>,
    get: Py<PyAny>,
    set: Py<PyAny>,
    reset: Py<PyAny>,
}

/// The permits of one limiter that code runs inside.
pub struct Nesting {
    variable: Cached<Variable>,
    /// How many permits are held that may enclose code. While there are none, nothing can be nested.
    open: AtomicUsize,
    /// How often this process is a fork of a fork, and one more: permits that were opened before do not count.
    generation: AtomicU32,
}

impl Default for Nesting {
    fn default() -> Self {
        Self { variable: Cached::new(), open: AtomicUsize::new(0), generation: AtomicU32::new(1) }
    }
}

impl Nesting {
    fn variable(&self, py: Python<'_>) -> PyResult<&Variable> {
        self.variable.get_or_make(|| {
            let class = py.import(intern!(py, "contextvars"))?.getattr(intern!(py, "ContextVar"))?;
            let default = [("default", py.None())].into_py_dict(py)?;
            let variable = class.call(("penstock_permit",), Some(&default))?;
            let method = |name| variable.getattr(name).map(Bound::unbind);
            let (get, set, reset) = (method("get")?, method("set")?, method("reset")?);
            Ok(Variable { object: variable.unbind(), get, set, reset })
        })
    }

    /// The permit which this code runs inside, if any.
    #[inline]
    pub fn enclosing(&self, py: Python<'_>) -> Option<Py<Permit>> {
        if self.open.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.innermost(py)
    }

    fn innermost(&self, py: Python<'_>) -> Option<Py<Permit>> {
        let value = self.variable(py).ok()?.get.bind(py).call0().ok()?;
        let mut permit = value.cast_into::<Permit>().ok().map(Bound::unbind);
        // A generator that was finished in another context leaves a released permit behind in this one.
        while let Some(inner) = permit {
            if !inner.get().is_over() {
                return Some(inner);
            }
            permit = inner.get().outside(py);
        }
        None
    }

    /// The context variable, for those who set and reset it themselves: decorated calls, in Python.
    pub fn object(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.variable(py)?.object.clone_ref(py))
    }

    /// One permit more may enclose code. Gives what [`Nesting::close`] takes.
    #[inline]
    pub fn open(&self) -> u32 {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.generation.load(Ordering::Relaxed)
    }

    /// One less.
    #[inline]
    pub fn close(&self, generation: u32) {
        if generation == self.generation.load(Ordering::Relaxed) {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// This code runs inside `permit` from here on. Gives what [`Nesting::leave`] takes.
    pub fn enter(&self, permit: &Bound<'_, Permit>) -> PyResult<Py<PyAny>> {
        self.variable(permit.py())?.set.bind(permit.py()).call1((permit,)).map(Bound::unbind)
    }

    /// This code no longer runs inside the permit that the token is of. A token of another context is left alone.
    pub fn leave(&self, py: Python<'_>, token: Py<PyAny>) {
        if let Ok(variable) = self.variable(py) {
            let _ = variable.reset.bind(py).call1((token,));
        }
    }

    /// The code that ran inside permits of this limiter is another process's.
    pub fn disown(&self) {
        self.open.store(0, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Relaxed);
    }
}
