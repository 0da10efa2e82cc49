//! Permits inside permits.
//!
//! A context variable holds the innermost permit of the task tree; each permit knows the one outside it. Inside a permit
//! of a limiter, a call takes no second slot of that limiter, and the first one is covered by the permit outside: it is
//! charged only for what it costs beyond that.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyString};

use super::driver::Driver;
use super::permit::Permit;

struct Variable {
    get: Py<PyAny>,
    set: Py<PyAny>,
    reset: Py<PyAny>,
}

static VARIABLE: PyOnceLock<Variable> = PyOnceLock::new();

fn variable(py: Python<'_>) -> PyResult<&Variable> {
    VARIABLE.get_or_try_init(py, || {
        let class = py.import("contextvars")?.getattr("ContextVar")?;
        let name = PyString::new(py, "penstock_permit");
        let variable = class.call((name,), Some(&[("default", py.None())].into_py_dict(py)?))?;
        let method = |name: &Bound<'_, PyString>| variable.getattr(name).map(Bound::unbind);
        let (get, set, reset) = (intern!(py, "get"), intern!(py, "set"), intern!(py, "reset"));
        Ok(Variable { get: method(get)?, set: method(set)?, reset: method(reset)? })
    })
}

/// The innermost permit of this task tree, released or not.
fn innermost(py: Python<'_>) -> Option<Py<Permit>> {
    let value = variable(py).ok()?.get.bind(py).call0().ok()?;
    value.cast_into::<Permit>().ok().map(Bound::unbind)
}

/// The permit of that limiter which this code runs inside, if any.
#[inline]
pub fn enclosing(py: Python<'_>, driver: &Driver) -> Option<Py<Permit>> {
    if !driver.has_scopes() {
        return None;
    }
    let mut permit = innermost(py);
    while let Some(candidate) = permit {
        if candidate.get().is_live_of(driver) {
            return Some(candidate);
        }
        permit = candidate.get().outside(py);
    }
    None
}

/// The permits that this code runs inside, from the innermost out.
pub fn chain(py: Python<'_>) -> Vec<Py<Permit>> {
    let next = |permit: &Py<Permit>| permit.get().outside(py);
    let mut chain = Vec::new();
    let mut permit = innermost(py);
    while let Some(inner) = permit {
        permit = next(&inner);
        chain.push(inner);
    }
    chain
}

/// Makes `permit` the innermost one. Gives the token that [`leave`] takes.
pub fn enter(permit: &Bound<'_, Permit>) -> PyResult<Py<PyAny>> {
    let py = permit.py();
    let variable = variable(py)?;
    permit.get().set_outside(innermost(py));
    Ok(variable.set.bind(py).call1((permit,))?.unbind())
}

/// Makes the permit outside the innermost one again. A token of another context (a generator that is finished
/// elsewhere) is left alone: the context it belongs to skips permits that are released.
pub fn leave(py: Python<'_>, token: &Py<PyAny>) {
    if let Ok(variable) = variable(py) {
        let _ = variable.reset.bind(py).call1((token,));
    }
}
