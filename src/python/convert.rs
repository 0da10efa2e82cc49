//! From Python's numbers to the core's, with errors that name the argument, the value and what is allowed.

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDelta, PyDeltaAccess, PyFloat, PyInt, PyString};

use crate::clock::{Nanos, SECOND};
use crate::cost::Cost;

/// The longest time that may be given: a hundred years. What is longer, infinity included, is taken as this.
const FOREVER: Nanos = 100 * 366 * 86_400 * SECOND;

/// Nanoseconds as seconds.
#[allow(clippy::cast_precision_loss)] // a double resolves a century to a microsecond
pub fn to_seconds(time: Nanos) -> f64 {
    time as f64 / 1e9
}

/// Seconds as nanoseconds: below zero is zero.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a cast saturates
pub fn from_seconds(seconds: f64) -> Nanos {
    (seconds * 1e9).round() as Nanos
}

/// `value` as Python shows it, cut when it is long.
pub fn shown(value: &Bound<'_, PyAny>) -> String {
    let text = value.repr().map_or_else(|_| "a value without repr".to_owned(), |repr| repr.to_string());
    if text.chars().count() > 80 { text.chars().take(77).chain("...".chars()).collect() } else { text }
}

/// A whole number from `least` to `most`. An integral float counts as one.
#[inline]
pub fn whole(name: &str, value: &Bound<'_, PyAny>, least: u64, most: u64) -> PyResult<u64> {
    let wrong =
        || PyValueError::new_err(format!("{name} must be a whole number from {least} to {most}, not {}", shown(value)));
    if !value.is_instance_of::<PyBool>() {
        if let Ok(number) = value.extract::<u64>() {
            return if (least..=most).contains(&number) { Ok(number) } else { Err(wrong()) };
        }
        if let Ok(float) = value.cast::<PyFloat>() {
            let float = float.value();
            // Bounds below 2^53 are exact as doubles; the largest here is 10^15.
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            return if float.fract() == 0.0 && float >= least as f64 && float <= most as f64 {
                Ok(float as u64)
            } else {
                Err(wrong())
            };
        }
        if value.lt(0).is_ok() {
            return Err(wrong()); // a number, but no such one
        }
    }
    Err(PyTypeError::new_err(format!("{name} must be a whole number from {least} to {most}, not {}", shown(value))))
}

/// What was given, if it is not None.
pub fn given<'a, 'py>(value: Option<&'a Bound<'py, PyAny>>) -> Option<&'a Bound<'py, PyAny>> {
    value.filter(|value| !value.is_none())
}

/// An amount of a cost: 0 where nothing was given.
#[inline]
pub fn amount(name: &str, value: Option<&Bound<'_, PyAny>>, default: u64) -> PyResult<u64> {
    value.map_or(Ok(default), |value| whole(name, value, 0, Cost::MAX))
}

/// A time of 0 or more: seconds, or a `timedelta`.
pub fn seconds(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Nanos> {
    let wrong = || format!("{name} must be a number of seconds, 0 or more, or a timedelta, not {}", shown(value));
    if let Ok(delta) = value.cast::<PyDelta>() {
        let days = u64::try_from(delta.get_days()).map_err(|_| PyValueError::new_err(wrong()))?;
        let (seconds, micros) = (delta.get_seconds().unsigned_abs(), delta.get_microseconds().unsigned_abs());
        let whole = (days * 86_400 + u64::from(seconds)).saturating_mul(SECOND);
        return Ok(whole.saturating_add(u64::from(micros) * 1_000).min(FOREVER));
    }
    if value.is_instance_of::<PyBool>() {
        return Err(PyTypeError::new_err(wrong()));
    }
    let number: f64 = match value.extract() {
        Ok(number) => number,
        // An int beyond any float.
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => {
            if value.lt(0)? {
                f64::NEG_INFINITY
            } else {
                f64::INFINITY
            }
        }
        Err(_) => return Err(PyTypeError::new_err(wrong())),
    };
    if number.is_nan() || number < 0.0 {
        return Err(PyValueError::new_err(wrong()));
    }
    Ok(from_seconds(number).min(FOREVER))
}

/// A time, or nothing for `None`.
pub fn optional_seconds(name: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Nanos>> {
    given(value).map(|value| seconds(name, value)).transpose()
}

/// A key: text or a whole number, or nothing for `None`.
pub fn key(value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<String>> {
    let Some(value) = given(value) else { return Ok(None) };
    if value.is_instance_of::<PyString>() {
        return text("key", value).map(Some);
    }
    if value.is_instance_of::<PyInt>() && !value.is_instance_of::<PyBool>() {
        return Ok(Some(value.str()?.to_string()));
    }
    Err(PyTypeError::new_err(format!("key must be a str, an int or None, not {}", shown(value))))
}

/// A priority: any whole number of 32 bits.
pub fn priority(value: Option<&Bound<'_, PyAny>>) -> PyResult<i32> {
    let Some(value) = value else { return Ok(0) };
    let number = value.is_instance_of::<PyInt>() && !value.is_instance_of::<PyBool>();
    if number && let Ok(priority) = value.extract() {
        return Ok(priority);
    }
    let message = format!("priority must be a whole number from {} to {}, not {}", i32::MIN, i32::MAX, shown(value));
    Err(if number { PyValueError::new_err(message) } else { PyTypeError::new_err(message) })
}

/// A text.
pub fn text(name: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    let Ok(text) = value.cast::<PyString>() else {
        return Err(PyTypeError::new_err(format!("{name} must be a str, not {}", shown(value))));
    };
    let whole = text.to_cow().map_err(|_| {
        PyValueError::new_err(format!(
            "{name} must be text that UTF-8 can hold, without half surrogates, not {}",
            shown(value)
        ))
    });
    Ok(whole?.into_owned())
}

/// One of a few texts.
pub fn one_of(name: &str, value: &Bound<'_, PyAny>, allowed: &[&str]) -> PyResult<String> {
    let given = value.cast::<PyString>().ok().and_then(|text| Some(text.to_cow().ok()?.into_owned()));
    if let Some(given) = given.as_ref().filter(|given| allowed.contains(&given.as_str())) {
        return Ok(given.clone());
    }
    let allowed: Vec<_> = allowed.iter().map(|value| format!("{value:?}")).collect();
    let message = format!("{name} must be {}, not {}", allowed.join(" or "), shown(value));
    Err(if given.is_some() { PyValueError::new_err(message) } else { PyTypeError::new_err(message) })
}

/// True or False, and nothing that only counts as that.
pub fn flag(name: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    value.extract().map_err(|_| PyTypeError::new_err(format!("{name} must be True or False, not {}", shown(value))))
}
