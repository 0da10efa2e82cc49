//! What a governed call asks of the core, in as few crossings as there are steps: its request is seen, its permit asked for
//! (`Limiter.ask_for`), its answer begun and settled.

use pyo3::prelude::*;

use crate::cost;
use crate::estimate::estimate_tokens;
use crate::provider::{self, Headers, Provider, Reader};

use super::limiter::Limiter;
use super::memory::hash_request;
use super::permit::{Cost, Permit};
use super::provider::{Call, UsageReader, named};
use super::verdict::{Pairs, Verdict, epoch};

/// What is read of a request before it is sent. What authenticates it is not shown.
#[pyclass(frozen, module = "penstock")]
pub struct Sent {
    method: String,
    host: String,
    port: Option<u16>,
    path: String,
    agent: String,
    secret: String,
    retried: bool,
    json: bool,
}

impl Sent {
    /// The host, with a port that is not the usual one.
    fn address(&self) -> String {
        self.port.map_or_else(|| self.host.clone(), |port| format!("{}:{port}", self.host))
    }

    fn see(&mut self, name: &[u8], value: &[u8]) {
        let is = |wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
        // Told apart by their lengths first: most headers are none of these.
        match name.len() {
            10 if is(b"user-agent") => self.agent = text(value),
            23 if is(b"x-stainless-retry-count") => self.retried = value != b"0",
            12 if is(b"content-type") => self.json = contains(value, b"json"),
            13 if is(b"authorization") => {
                // A signature of Amazon's is another each time; what comes before its first slash names the key.
                let signed = value.starts_with(b"AWS4");
                let key = value.split(|byte| signed && *byte == b'/').next().unwrap_or(value);
                self.secret.push_str(&text(key));
            }
            7 | 9 | 14 | 19
                if [&b"api-key"[..], b"x-api-key", b"x-goog-api-key", b"openai-project", b"openai-organization"]
                    .into_iter()
                    .any(is) =>
            {
                self.secret.push_str(&text(value));
            }
            _ => {}
        }
    }
}

/// Bytes of a header, as Latin-1.
fn text(value: &[u8]) -> String {
    value.iter().map(|byte| char::from(*byte)).collect()
}

fn contains(value: &[u8], part: &[u8]) -> bool {
    value.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

#[pymethods]
impl Sent {
    #[new]
    #[pyo3(signature = (method, host, port, path, headers, secret=""))]
    fn new(
        method: &str,
        host: &str,
        port: Option<u16>,
        path: &[u8],
        headers: &Bound<'_, PyAny>,
        secret: &str,
    ) -> PyResult<Self> {
        let mut sent = Self {
            method: method.to_owned(),
            host: host.to_owned(),
            port,
            path: String::from_utf8_lossy(path).into_owned(),
            agent: String::new(),
            secret: secret.to_owned(),
            retried: false,
            json: true,
        };
        for (name, value) in Pairs::of(headers)?.borrowed() {
            sent.see(name, value);
        }
        Ok(sent)
    }

    /// Its method.
    #[getter]
    fn method(&self) -> &str {
        &self.method
    }

    /// The host that it goes to.
    #[getter]
    fn host(&self) -> &str {
        &self.host
    }

    /// The port, if it is not the usual one.
    #[getter]
    fn port(&self) -> Option<u16> {
        self.port
    }

    /// The path of its URL, with the query.
    #[getter]
    fn path(&self) -> &str {
        &self.path
    }

    /// The `user-agent`, which names an SDK.
    #[getter]
    fn agent(&self) -> &str {
        &self.agent
    }

    /// Whether the SDK says that it sends it again.
    #[getter]
    fn retried(&self) -> bool {
        self.retried
    }

    /// Whether its body is one to read.
    #[getter]
    fn json(&self) -> bool {
        self.json
    }

    /// Whether it takes nothing from any quota of calls and tokens.
    #[getter]
    fn free(&self) -> bool {
        provider::is_free(&self.method, &self.path)
    }

    /// Whose API it goes to, by its address and its path.
    #[getter]
    fn provider(&self) -> &'static str {
        Provider::of_request(&self.address(), &self.path).name()
    }

    /// What it says of its size in `body`.
    fn read(&self, body: &[u8]) -> Call {
        Call(provider::Call::read(&self.path, body, &estimate_tokens))
    }

    /// What stands for it and its body in a `Memory`.
    fn hash(&self, body: &[u8]) -> u64 {
        hash_request(&self.method, &format!("{}{}", self.address(), self.path), &self.secret, body)
    }

    fn __repr__(&self) -> String {
        format!("<Sent to {}>", self.address())
    }
}

/// What a call costs by what was learnt of its model.
pub fn expected(limiter: &Limiter, call: &Call, provider: &str) -> PyResult<cost::Cost> {
    let provider = named(provider)?;
    let (scale, output) = limiter.expected(call.0.model.as_deref(), provider);
    Ok(call.0.cost_scaled(provider, output, scale).clamped())
}

/// What a call costs by what the limiter has learnt of its model. Raises `ValueError` for an unknown provider.
#[pyfunction]
pub fn cost_of(limiter: &Limiter, call: &Call, provider: &str) -> PyResult<Cost> {
    expected(limiter, call, provider).map(Into::into)
}

/// An answer that is no failure begins: the limiter hears its headers, and its body is read with what this gives.
///
/// Raises `TypeError` for headers that are none, `ValueError` for an unknown provider.
#[pyfunction]
pub fn begin_answer(
    py: Python<'_>,
    limiter: &Limiter,
    call: &Call,
    provider: &str,
    status: u16,
    headers: &Bound<'_, PyAny>,
    permit: Option<&Permit>,
) -> PyResult<UsageReader> {
    let provider = named(provider)?;
    let pairs = Pairs::of(headers)?;
    let borrowed = pairs.borrowed();
    let headers = Headers::new(&borrowed);
    let verdict = Verdict(Reader::new(provider).read(status, headers, b"", epoch()));
    limiter.hear(py, &verdict, permit);
    Ok(UsageReader::of(provider, call.0.model.as_deref(), headers))
}

/// Settles a permit by what an answer says that its call used; by what came of it, if it says nothing.
///
/// Of an answer that was not read to its end nothing is refunded: what the provider has made beyond what was read, nobody
/// knows. An error inside of the answer is told to the limiter.
#[pyfunction]
pub fn settle_answer(
    py: Python<'_>,
    limiter: &Limiter,
    call: &Call,
    answer: &UsageReader,
    permit: &Permit,
    whole: bool,
    blind: bool,
) {
    let (wrong, usage, used, provider, estimate) = {
        let reader = answer.reader.lock();
        (reader.error().cloned(), reader.usage(), reader.cost(), reader.provider(), reader.estimate())
    };
    if let Some(wrong) = wrong {
        limiter.hear(py, &Verdict(wrong), Some(permit));
    }
    if !limiter.counts() {
        return;
    }
    let cost = match used {
        Some(used) => {
            if let Some(usage) = usage.filter(|_| whole) {
                limiter.learn_from(call, &usage);
            }
            call.0.settled(provider, &used.clamped())
        }
        None if blind || call.0.background || !call.0.generates => return,
        None => {
            // Nobody reported anything: what came is counted, and the input stays as it was estimated.
            let (scale, _) = limiter.expected(call.0.model.as_deref(), provider);
            call.0.cost_scaled(provider, Some(estimate), scale)
        }
    }
    .clamped();
    let held = permit.total();
    let cost = if whole {
        cost
    } else {
        cost::Cost {
            tokens: cost.tokens.max(held.tokens),
            input_tokens: cost.input_tokens.max(held.input_tokens),
            output_tokens: cost.output_tokens.max(held.output_tokens),
            ..cost
        }
    };
    permit.settle_at(py, &cost);
}
