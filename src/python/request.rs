//! A call that asks for a permit, as Python describes it.

use pyo3::prelude::*;

use crate::clock::Nanos;
use crate::cost::Cost;
use crate::gate;

use super::convert::{amount, key, optional_seconds, priority};

/// Cost, key, priority and timeout of one call.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub cost: Cost,
    pub key: Option<String>,
    pub priority: i32,
    pub timeout: Option<Nanos>,
}

/// What Python gives, not yet looked at.
pub struct Given<'a, 'py> {
    pub tokens: Option<&'a Bound<'py, PyAny>>,
    pub requests: Option<&'a Bound<'py, PyAny>>,
    pub input_tokens: Option<&'a Bound<'py, PyAny>>,
    pub output_tokens: Option<&'a Bound<'py, PyAny>>,
    pub key: Option<&'a Bound<'py, PyAny>>,
    pub priority: Option<&'a Bound<'py, PyAny>>,
    pub timeout: Option<&'a Bound<'py, PyAny>>,
}

impl Request {
    /// One request and no tokens.
    pub fn one() -> Self {
        Self { cost: Cost { requests: 1, ..Cost::default() }, ..Self::default() }
    }

    /// Looks at what Python gave.
    #[inline]
    pub fn new(given: &Given<'_, '_>) -> PyResult<Self> {
        // What most calls give: tokens at most.
        if let Given {
            requests: None,
            input_tokens: None,
            output_tokens: None,
            key: None,
            priority: None,
            timeout: None,
            ..
        } = given
        {
            let cost = Cost { requests: 1, tokens: amount("tokens", given.tokens, 0)?, ..Cost::default() };
            return Ok(Self { cost, ..Self::default() });
        }
        let cost = cost(given.tokens, given.input_tokens, given.output_tokens, amount("requests", given.requests, 1)?)?;
        let key = key(given.key)?;
        let (priority, timeout) = (priority(given.priority)?, optional_seconds("timeout", given.timeout)?);
        Ok(Self { cost, key, priority, timeout })
    }

    /// As the gate wants it.
    #[inline]
    pub fn gate(&self, cost: Cost, nested: bool) -> gate::Request<'_> {
        gate::Request { cost, key: self.key.as_deref(), priority: self.priority, timeout: self.timeout, nested }
    }
}

/// A cost. Where only input and output are known, tokens are their sum.
#[inline]
pub fn cost(
    tokens: Option<&Bound<'_, PyAny>>,
    input_tokens: Option<&Bound<'_, PyAny>>,
    output_tokens: Option<&Bound<'_, PyAny>>,
    requests: u64,
) -> PyResult<Cost> {
    let mut tokens = amount("tokens", tokens, 0)?;
    let (input_tokens, output_tokens) =
        (amount("input_tokens", input_tokens, 0)?, amount("output_tokens", output_tokens, 0)?);
    if tokens == 0 {
        tokens = input_tokens + output_tokens;
    }
    Ok(Cost { requests, tokens, input_tokens, output_tokens })
}
