//! What an answer of a provider means.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

use crate::cost::Dimension;
use crate::provider::{Headers, Kind, Provider, Reader, Reading};
use crate::retry::{Failure, FailureKind};

use super::convert::{shown, whole};

/// What an answer of a provider means, with the wait that it stated.
#[pyclass(frozen, module = "penstock")]
pub struct Verdict(pub Reading);

/// Seconds since 1970.
pub fn epoch() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Text or bytes, as bytes.
fn bytes(value: &Bound<'_, PyAny>) -> Option<Vec<u8>> {
    if let Ok(text) = value.cast::<PyString>() {
        return Some(text.to_string_lossy().into_owned().into_bytes());
    }
    value.cast::<PyBytes>().ok().map(|bytes| bytes.as_bytes().to_vec())
}

/// The names and values of headers, whatever they are kept in.
fn pairs(headers: &Bound<'_, PyAny>) -> PyResult<Vec<(Vec<u8>, Vec<u8>)>> {
    let wrong = || {
        let message = "headers must be a mapping of names to values, a list of such pairs, or None, not";
        PyTypeError::new_err(format!("{message} {}", shown(headers)))
    };
    // httpx's and other multi-valued mappings give every value only this way.
    let items = ["multi_items", "items"].iter().find_map(|name| headers.call_method0(*name).ok());
    let items = items.unwrap_or_else(|| headers.clone());
    let mut pairs = Vec::new();
    for item in items.try_iter().map_err(|_| wrong())? {
        let item = item?;
        // Raw ASGI headers are lists of pairs, and pairs that were JSON once are lists too.
        let (name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = match item.extract() {
            Ok(pair) => pair,
            Err(_) => item.extract::<[Bound<'_, PyAny>; 2]>().map(Into::into).map_err(|_| wrong())?,
        };
        let value = if value.is_instance_of::<pyo3::types::PyInt>() { value.str()?.into_any() } else { value };
        pairs.push((bytes(&name).ok_or_else(wrong)?, bytes(&value).unwrap_or_default()));
    }
    Ok(pairs)
}

/// The names and values of headers, held while they are read.
pub enum Pairs<'py> {
    /// As httpx has them: a list of pairs of bytes, which need no copies.
    Held(Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>),
    Copied(Vec<(Vec<u8>, Vec<u8>)>),
}

impl<'py> Pairs<'py> {
    /// Those of `headers`, whatever they are kept in. Raises `TypeError` for what is none.
    pub fn of(headers: &Bound<'py, PyAny>) -> PyResult<Self> {
        let held = headers.cast::<PyList>().ok().and_then(|list| {
            let pair = |item: Bound<'py, PyAny>| {
                let pair = item.cast_into::<PyTuple>().ok().filter(|pair| pair.len() == 2)?;
                let bytes = |place| pair.get_item(place).ok()?.cast_into::<PyBytes>().ok();
                Some((bytes(0)?, bytes(1)?))
            };
            list.iter().map(pair).collect::<Option<Vec<_>>>()
        });
        held.map_or_else(|| pairs(headers).map(Self::Copied), |held| Ok(Self::Held(held)))
    }

    /// What the core reads.
    pub fn borrowed(&self) -> Vec<(&[u8], &[u8])> {
        match self {
            Self::Held(pairs) => pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect(),
            Self::Copied(pairs) => pairs.iter().map(|(name, value)| (&name[..], &value[..])).collect(),
        }
    }
}

fn body_bytes(body: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    if let Some(bytes) = bytes(body) {
        return Ok(bytes);
    }
    let py = body.py();
    let json = py.import(intern!(py, "json"))?.call_method1(intern!(py, "dumps"), (body,)).map_err(|_| {
        let message = format!("body must be bytes, str, what json.dumps takes, or None, not {}", shown(body));
        PyTypeError::new_err(message)
    })?;
    Ok(bytes(&json).unwrap_or_default())
}

impl Verdict {
    /// Reads an answer. A status of 0 is none at all; headers that nobody knows are None.
    pub fn read(
        status: &Bound<'_, PyAny>,
        headers: Option<&Bound<'_, PyAny>>,
        body: Option<&Bound<'_, PyAny>>,
        provider: Option<&str>,
    ) -> PyResult<Self> {
        let status = u16::try_from(whole("status", status, 0, 999)?).unwrap_or_default();
        let pairs = headers.filter(|headers| !headers.is_none()).map(Pairs::of).transpose()?;
        let body = body.filter(|body| !body.is_none()).map(body_bytes).transpose()?.unwrap_or_default();
        let provider = provider.map_or(Ok(Provider::Unknown), super::provider::named)?;
        let borrowed = pairs.as_ref().map(Pairs::borrowed);
        let headers = borrowed.as_ref().map_or(Headers::unseen(), |pairs| Headers::new(pairs));
        Ok(Self(Reader::new(provider).read(status, headers, &body, epoch())))
    }

    /// The reading, in which a spent quota that says when it is back also says how long that is: the gate has no
    /// calendar.
    pub fn with_reset(&self) -> Cow<'_, Reading> {
        let verdict = &self.0.verdict;
        let Some(resets_at) =
            verdict.resets_at.filter(|_| verdict.kind == Kind::QuotaExhausted && verdict.wait.is_none())
        else {
            return Cow::Borrowed(&self.0);
        };
        let mut reading = self.0.clone();
        let nanos = super::convert::from_seconds((resets_at - epoch()).max(0.0));
        reading.verdict.wait = Some(Duration::from_nanos(nanos));
        Cow::Owned(reading)
    }

    /// As the retry policy wants it.
    pub fn failure(&self) -> Failure {
        let verdict = &self.0.verdict;
        let kind = match verdict.kind {
            Kind::Throttled => FailureKind::Throttled,
            Kind::Overloaded => FailureKind::Overloaded,
            Kind::Ok | Kind::Transient => FailureKind::Transient,
            Kind::Oversize => FailureKind::Oversize,
            Kind::QuotaExhausted => FailureKind::QuotaExhausted,
            Kind::Fatal => FailureKind::Fatal,
        };
        let wait = verdict.wait.map(|wait| u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
        Failure { wait, retryable: verdict.retryable, ..Failure::new(kind) }
    }
}

#[pymethods]
impl Verdict {
    /// What kind of answer it is; all but the first are failures.
    ///
    /// `"ok"`, `"throttled"`, `"overloaded"`, `"transient"`, `"oversize"`, `"quota_exhausted"` or `"fatal"`.
    #[getter]
    fn kind(&self) -> &'static str {
        self.0.verdict.kind.name()
    }

    /// The wait that the provider stated, in seconds; None if it stated none.
    #[getter]
    fn wait(&self) -> Option<f64> {
        self.0.verdict.wait.map(|wait| wait.as_secs_f64())
    }

    /// The dimension that was short; None if that is not known.
    #[getter]
    fn dimension(&self) -> Option<&'static str> {
        self.0.verdict.dimension.map(Dimension::name)
    }

    /// Whether the same call can succeed later.
    #[getter]
    fn retryable(&self) -> bool {
        self.0.verdict.retryable
    }

    /// When a spent quota is there again, in seconds since 1970; None if that is not known.
    #[getter]
    fn resets_at(&self) -> Option<f64> {
        self.0.verdict.resets_at
    }

    /// The provider's own word for the failure, such as `"rate_limit_exceeded"`.
    #[getter]
    fn code(&self) -> Option<&str> {
        self.0.verdict.code.as_deref()
    }

    /// The provider's own sentence about it.
    #[getter]
    fn detail(&self) -> Option<&str> {
        self.0.verdict.detail.as_deref()
    }

    /// Whose answer it is, as far as it can be told: "openai", "azure", ..., "unknown".
    #[getter]
    fn provider(&self) -> &'static str {
        self.0.provider.name()
    }

    /// What the provider counts of a call that failed so: "nothing", "requests", or "all".
    ///
    /// A call that the provider may have run is counted in full.
    #[getter]
    fn charged(&self) -> &'static str {
        match self.0.verdict.kind {
            Kind::Ok | Kind::Transient => "all",
            Kind::Throttled | Kind::Overloaded | Kind::Oversize | Kind::QuotaExhausted | Kind::Fatal => {
                if self.0.provider.profile().failures_count == Some(false) { "nothing" } else { "requests" }
            }
        }
    }

    fn __repr__(&self) -> String {
        let verdict = &self.0.verdict;
        let mut parts = vec![verdict.kind.name().to_owned()];
        parts.extend(verdict.dimension.map(|dimension| format!("short of {dimension}")));
        parts.extend(verdict.wait.map(|wait| format!("wait {:.3} s", wait.as_secs_f64())));
        if verdict.kind != Kind::Ok {
            parts.push(if verdict.retryable { "retryable" } else { "not retryable" }.to_owned());
        }
        parts.extend(verdict.code.as_ref().map(|code| format!("code {code:?}")));
        format!("<Verdict {}>", parts.join(", "))
    }
}

/// What an answer of a provider means; without effect on any limiter.
///
/// `status` 0 is no answer at all, `headers` None are headers that nobody knows. Raises `TypeError` or `ValueError` for
/// arguments that cannot be.
#[pyfunction]
#[pyo3(signature = (status, headers=None, body=None, provider=None))]
pub fn read_answer(
    status: &Bound<'_, PyAny>,
    headers: Option<&Bound<'_, PyAny>>,
    body: Option<&Bound<'_, PyAny>>,
    provider: Option<&str>,
) -> PyResult<Verdict> {
    Verdict::read(status, headers, body, provider)
}
