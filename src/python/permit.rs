//! The right to make one call now.

use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::clock::{self, Nanos};
use crate::cost;
use crate::gate::Grant;

use super::convert::{amount, given, to_seconds};
use super::driver::Driver;
use super::nesting::Token;

/// What a call uses in each dimension.
#[pyclass(frozen, eq, hash, get_all, module = "penstock")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cost {
    requests: u64,
    tokens: u64,
    input_tokens: u64,
    output_tokens: u64,
}

impl From<cost::Cost> for Cost {
    fn from(cost: cost::Cost) -> Self {
        let cost::Cost { requests, tokens, input_tokens, output_tokens } = cost;
        Self { requests, tokens, input_tokens, output_tokens }
    }
}

#[pymethods]
impl Cost {
    fn __repr__(&self) -> String {
        let Self { requests, tokens, input_tokens, output_tokens } = self;
        format!(
            "Cost(requests={requests}, tokens={tokens}, input_tokens={input_tokens}, output_tokens={output_tokens})"
        )
    }
}

/// The permit outside of a nested one, and what of its cost the nested one may use. Dropped unused, it is given back.
pub struct Nested {
    parent: Py<Permit>,
    covered: Option<cost::Cost>,
}

impl Nested {
    /// Takes what the permit covers, if no other call has.
    pub fn cover(parent: Py<Permit>) -> Self {
        let covered = parent.get().take_cover();
        Self { parent, covered }
    }

    /// What the nested call need not be charged for.
    pub fn covered(&self) -> cost::Cost {
        self.covered.unwrap_or_default()
    }

    /// The call has its permit: from here on the cover is used.
    fn spend(mut self) -> (Py<Permit>, cost::Cost) {
        let covered = self.covered.take();
        let parent = Python::attach(|py| self.parent.clone_ref(py));
        (parent, covered.unwrap_or_default())
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        if self.covered.is_some() {
            self.parent.get().held.lock().cover = true;
        }
    }
}

struct Held {
    grant: Grant,
    released: bool,
    /// Whether the first call inside may use what was charged.
    cover: bool,
    /// Whether calls inside have settled, or will settle, what was charged.
    inside: bool,
    /// What ends the block that it is the permit of.
    token: Option<Token>,
}

/// The right to make one call now. See `_core.pyi` for its documentation.
#[pyclass(frozen, module = "penstock")]
pub struct Permit {
    driver: Arc<Driver>,
    held: Mutex<Held>,
    parent: Option<Box<(Py<Permit>, cost::Cost)>>,
}

impl Permit {
    /// The permit of a grant.
    #[inline]
    pub fn new(py: Python<'_>, driver: &Arc<Driver>, grant: Grant, nested: Option<Nested>) -> PyResult<Py<Self>> {
        let parent = nested.map(|nested| Box::new(nested.spend()));
        let held = Held { grant, released: false, cover: true, inside: false, token: None };
        Py::new(py, Self { driver: Arc::clone(driver), held: Mutex::new(held), parent })
    }

    fn take_cover(&self) -> Option<cost::Cost> {
        let mut held = self.held.lock();
        held.inside = true;
        std::mem::replace(&mut held.cover, false).then_some(held.grant.cost)
    }

    /// When its call left.
    pub fn charged_at(&self) -> Nanos {
        self.held.lock().grant.charged_at
    }

    /// Whether it was given back, or is the copy of a parent process's.
    pub fn is_over(&self) -> bool {
        let (grant, released) = {
            let held = self.held.lock();
            (held.grant, held.released)
        };
        released || !self.driver.gate.lock().counts_grant(&grant)
    }

    /// The permit outside of this one.
    pub fn outside(&self, py: Python<'_>) -> Option<Py<Self>> {
        self.parent.as_ref().map(|parent| parent.0.clone_ref(py))
    }

    /// A block begins: what it runs from here on runs inside this permit.
    #[inline]
    pub fn begin(slf: &Bound<'_, Self>) -> PyResult<()> {
        let token = slf.get().driver.nesting.enter(slf)?;
        slf.get().held.lock().token = Some(token);
        Ok(())
    }

    /// Gives it back, once, and ends its block.
    #[inline]
    pub fn give_back(&self, py: Python<'_>) {
        let (grant, token) = {
            let mut held = self.held.lock();
            if std::mem::replace(&mut held.released, true) {
                return;
            }
            let grant = held.grant;
            held.grant = grant.released();
            (grant, held.token.take())
        };
        if let Some(token) = token {
            self.driver.nesting.leave(py, token);
        }
        self.driver.release(py, &grant);
    }

    /// Replaces the cost. What a call inside has used is that call's to settle.
    fn replace_cost(&self, py: Python<'_>, actual: cost::Cost) {
        let mut own = actual;
        if let Some(parent) = &self.parent {
            let (parent, covered) = &**parent;
            own = actual.minus(*covered);
            parent.get().uncharge(covered.minus(actual));
        }
        let mut grant = self.held.lock().grant;
        let waiting = {
            let mut gate = self.driver.gate.lock();
            gate.settle(clock::now(), &mut grant, &own);
            gate.waiting()
        };
        self.held.lock().grant = grant;
        if waiting > 0 {
            self.driver.pump(py);
        }
    }

    /// Takes back what a call inside did not use of this permit's cost.
    fn uncharge(&self, unused: cost::Cost) {
        let mut grant = self.held.lock().grant;
        let actual = grant.cost.minus(unused);
        self.driver.gate.lock().settle(clock::now(), &mut grant, &actual);
        self.held.lock().grant = grant;
    }

    /// What was charged in all: with what the permit outside covers.
    fn total(&self) -> cost::Cost {
        let own = self.held.lock().grant.cost;
        self.parent.as_ref().map_or(own, |parent| own.plus(parent.1))
    }
}

#[pymethods]
impl Permit {
    #[pyo3(signature = (tokens=None, input_tokens=None, output_tokens=None))]
    fn settle(
        &self,
        py: Python<'_>,
        tokens: Option<&Bound<'_, PyAny>>,
        input_tokens: Option<&Bound<'_, PyAny>>,
        output_tokens: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let charged = self.total();
        let in_and_out = given(input_tokens).is_some() && given(output_tokens).is_some();
        let input_tokens = amount("input_tokens", given(input_tokens), charged.input_tokens)?;
        let output_tokens = amount("output_tokens", given(output_tokens), charged.output_tokens)?;
        let sum = if in_and_out { input_tokens + output_tokens } else { charged.tokens };
        let tokens = amount("tokens", given(tokens), sum)?;
        if !self.held.lock().inside {
            self.replace_cost(py, cost::Cost { requests: charged.requests, tokens, input_tokens, output_tokens });
        }
        Ok(())
    }

    fn release(&self, py: Python<'_>) {
        self.give_back(py);
    }

    fn suspend(&self, py: Python<'_>) {
        let token = self.held.lock().token.take();
        if let Some(token) = token {
            self.driver.nesting.leave(py, token);
        }
    }

    fn resume(slf: &Bound<'_, Self>) -> PyResult<()> {
        if slf.get().held.lock().released { Ok(()) } else { Self::begin(slf) }
    }

    #[getter]
    fn waited(&self) -> f64 {
        to_seconds(self.held.lock().grant.waited)
    }

    #[getter]
    fn cost(&self) -> Cost {
        self.total().into()
    }

    #[getter]
    fn released(&self) -> bool {
        self.held.lock().released
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_error))]
    fn __exit__(&self, py: Python<'_>, _error: &Bound<'_, pyo3::types::PyTuple>) {
        self.give_back(py);
    }

    fn __repr__(&self) -> String {
        let state = if self.held.lock().released { "released" } else { "held" };
        format!("<Permit of limiter {:?}, {}, {state}>", self.driver.name, self.total())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.held.get_mut().released {
            let _ = Python::try_attach(|py| self.give_back(py));
        }
    }
}
