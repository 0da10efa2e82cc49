//! `Rate` in Python.

use std::hash::{DefaultHasher, Hash, Hasher};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::clock::SECOND;
use crate::rate;

use super::convert::{flag, seconds, shown, to_seconds, whole};

/// An amount per period of one dimension: a token bucket, and a rolling window that guards it.
///
/// The bucket holds `burst` and is refilled at `amount / per`; in any window of `per` seconds (plus the limiter's
/// `network_jitter`) no more than `amount` leaves, unless `window` is False.
///
/// `amount` and `burst` are whole numbers, `burst` by default one second's worth and at least 1; `per` is in seconds,
/// or a timedelta. Raises `TypeError` or `ValueError` with the argument's name, its value and what is allowed.
#[pyclass(frozen, eq, module = "penstock", from_py_object)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rate(pub rate::Rate);

#[pymethods]
impl Rate {
    #[new]
    #[pyo3(signature = (amount, per, *, burst=None, window=None), text_signature = "(amount, per, *, burst=None, window=True)")]
    fn new(
        amount: &Bound<'_, PyAny>,
        per: &Bound<'_, PyAny>,
        burst: Option<&Bound<'_, PyAny>>,
        window: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let window = window.map_or(Ok(true), |window| flag("window", window))?;
        let amount = whole("amount", amount, 1, rate::Rate::MAX_AMOUNT)?;
        let period = seconds("per", per)?;
        let wrong = |error: rate::RateError| PyValueError::new_err(error.to_string());
        let mut rate = rate::Rate::new(amount, period).map_err(wrong)?.with_window(window);
        if let Some(burst) = burst {
            let burst = whole("burst", burst, 1, rate::Rate::MAX_AMOUNT)?;
            rate = rate.with_burst(burst).map_err(wrong)?;
        }
        Ok(Self(rate))
    }

    /// How much may leave in a period.
    #[getter]
    fn amount(&self) -> u64 {
        self.0.amount()
    }

    /// The period, in seconds.
    #[getter]
    fn per(&self) -> f64 {
        to_seconds(self.0.period())
    }

    /// How much may leave at once after a pause.
    #[getter]
    fn burst(&self) -> u64 {
        self.0.burst()
    }

    /// Whether a rolling window guards the amount.
    #[getter]
    fn window(&self) -> bool {
        self.0.window()
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.0.amount(), self.0.period(), self.0.burst(), self.0.window()).hash(&mut hasher);
        hasher.finish()
    }

    fn __repr__(&self) -> String {
        let Self(rate) = self;
        let per = rate::Seconds(rate.period());
        let window = if rate.window() { "True" } else { "False" };
        format!("Rate({}, per={per}, burst={}, window={window})", rate.amount(), rate.burst())
    }

    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> PyResult<((u64, f64), Bound<'py, PyDict>)> {
        let more = PyDict::new(py);
        more.set_item("burst", self.burst())?;
        more.set_item("window", self.window())?;
        Ok(((self.amount(), self.per()), more))
    }
}

/// The rates that were given for one dimension, as the argument `name`: a number per minute, a `Rate`, or several of
/// these.
pub fn rates(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Vec<rate::Rate>> {
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let each = value.try_iter()?.map(|item| one(name, &item?));
        let rates: Vec<_> = each.collect::<PyResult<_>>()?;
        if rates.is_empty() {
            let message = format!("{name} must name at least one rate, not {}; use None for no limit", shown(value));
            return Err(PyValueError::new_err(message));
        }
        return Ok(rates);
    }
    Ok(vec![one(name, value)?])
}

fn one(name: &str, value: &Bound<'_, PyAny>) -> PyResult<rate::Rate> {
    if let Ok(rate) = value.cast::<Rate>() {
        return Ok(rate.get().0);
    }
    let amount = whole(name, value, 1, rate::Rate::MAX_AMOUNT).map_err(|error| {
        if error.is_instance_of::<PyTypeError>(value.py()) {
            let shown = shown(value);
            let message = format!("{name} must be a whole number per minute, a Rate or a list of these, not {shown}");
            PyTypeError::new_err(message)
        } else {
            error
        }
    })?;
    rate::Rate::new(amount, 60 * SECOND).map_err(|error| PyValueError::new_err(error.to_string()))
}
