//! What is said of arguments that a call does not have.

use std::convert::Infallible;

use pyo3::Borrowed;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::cached::intern;

/// An argument that may be left out, and where None is as wrong as any other value that cannot be: what forgets to give
/// a cost would be charged nothing.
#[derive(Clone, Copy)]
pub struct Argument<'a, 'py>(Option<Borrowed<'a, 'py, PyAny>>);

impl<'py> Argument<'_, 'py> {
    /// One that was left out.
    #[inline]
    pub fn left_out() -> Self {
        Self(None)
    }

    /// What was given, if anything was.
    #[inline]
    pub fn given(&self) -> Option<&Bound<'py, PyAny>> {
        self.0.as_deref()
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Argument<'a, 'py> {
    type Error = Infallible;

    #[inline]
    fn extract(given: Borrowed<'a, 'py, PyAny>) -> Result<Self, Infallible> {
        Ok(Self(Some(given)))
    }
}

/// What limits there are, as `Limiter` is given them.
pub const LIMITS: &[&str] = &["requests", "tokens", "input_tokens", "output_tokens", "concurrency"];

/// Refuses arguments that `call` does not have, which has those that are `known`.
///
/// # Errors
/// `TypeError`, with the name that was probably meant.
#[inline]
pub fn none(call: &str, known: &[&str], others: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
    others.map_or(Ok(()), |others| Err(unknown(call, known, others)))
}

#[cold]
fn unknown(call: &str, known: &[&str], others: &Bound<'_, PyDict>) -> PyErr {
    let py = others.py();
    let says = || {
        let arguments = py.import(intern!(py, "penstock.arguments"))?;
        arguments.call_method1(intern!(py, "unknown"), (call, others, known.to_vec()))
    };
    says().map_or_else(|error| error, PyErr::from_value)
}

/// What to say of a name that is not among those that are known.
///
/// # Errors
/// What Python says where it cannot.
#[cold]
pub fn hint(py: Python<'_>, name: &str, known: &[&str]) -> PyResult<String> {
    let arguments = py.import(intern!(py, "penstock.arguments"))?;
    arguments.call_method1(intern!(py, "hint"), (name, known.to_vec()))?.extract()
}
