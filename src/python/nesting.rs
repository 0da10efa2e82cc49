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
    get: Py<PyAny>,
    set: Py<PyAny>,
    reset: Py<PyAny>,
}

/// The permits of one limiter that code runs inside.
pub struct Nesting {
    variable: Cached<Variable>,
    /// How many permits are the enclosing one of some code. While there are none, nothing can be nested.
    scopes: AtomicUsize,
    /// How often this process is a fork of a fork: blocks that began before do not count.
    forks: AtomicU32,
}

/// What ends a block.
pub struct Token {
    object: Py<PyAny>,
    forks: u32,
}

impl Default for Nesting {
    fn default() -> Self {
        Self { variable: Cached::new(), scopes: AtomicUsize::new(0), forks: AtomicU32::new(0) }
    }
}

impl Nesting {
    fn variable(&self, py: Python<'_>) -> PyResult<&Variable> {
        self.variable.get_or_make(|| {
            let class = py.import(intern!(py, "contextvars"))?.getattr(intern!(py, "ContextVar"))?;
            let default = [("default", py.None())].into_py_dict(py)?;
            let variable = class.call(("penstock_permit",), Some(&default))?;
            let method = |name| variable.getattr(name).map(Bound::unbind);
            Ok(Variable { get: method("get")?, set: method("set")?, reset: method("reset")? })
        })
    }

    /// The permit which this code runs inside, if any.
    #[inline]
    pub fn enclosing(&self, py: Python<'_>) -> Option<Py<Permit>> {
        if self.scopes.load(Ordering::Relaxed) == 0 {
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

    /// This code runs inside `permit` from here on. Gives what [`Nesting::leave`] takes.
    pub fn enter(&self, permit: &Bound<'_, Permit>) -> PyResult<Token> {
        let py = permit.py();
        let object = self.variable(py)?.set.bind(py).call1((permit,))?.unbind();
        self.scopes.fetch_add(1, Ordering::Relaxed);
        Ok(Token { object, forks: self.forks.load(Ordering::Relaxed) })
    }

    /// This code no longer runs inside the permit that the token is of. A token of another context is left alone.
    pub fn leave(&self, py: Python<'_>, token: Token) {
        if token.forks == self.forks.load(Ordering::Relaxed) {
            self.scopes.fetch_sub(1, Ordering::Relaxed);
        }
        if let Ok(variable) = self.variable(py) {
            let _ = variable.reset.bind(py).call1((token.object,));
        }
    }

    /// The code that ran inside permits of this limiter is another process's.
    pub fn disown(&self) {
        self.scopes.store(0, Ordering::Relaxed);
        self.forks.fetch_add(1, Ordering::Relaxed);
    }
}
