//! What providers count, for what governs calls: calls before they are sent, and usage in answers.

use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::clock::{Nanos, SECOND};
use crate::cost::Dimension;
use crate::estimate::estimate_tokens;
use crate::provider::{self, Headers, Provider, streaming};
use crate::rate;

use super::convert::{amount, given, seconds, whole};
use super::permit::Cost;
use super::rate::Rate;
use super::verdict::{Pairs, Verdict, epoch};

const MINUTE: Nanos = 60 * SECOND;

/// The provider of this name.
pub fn named(name: &str) -> PyResult<Provider> {
    Provider::from_name(name).ok_or_else(|| {
        let known: Vec<_> = Provider::ALL.iter().map(|provider| provider.name()).collect();
        PyValueError::new_err(format!("provider must be one of {}, not {name:?}", known.join(", ")))
    })
}

/// What a request says about its size, before it is sent.
#[pyclass(frozen, module = "penstock")]
pub struct Call(pub provider::Call);

#[pymethods]
impl Call {
    /// The model or deployment, from the body or from the path; None if neither names it.
    #[getter]
    fn model(&self) -> Option<&str> {
        self.0.model.as_deref()
    }

    /// Whether the answer is streamed.
    #[getter]
    fn stream(&self) -> bool {
        self.0.stream
    }

    /// Estimated tokens of all text in it; images, audio and files are not counted.
    #[getter]
    fn input_tokens(&self) -> u64 {
        self.0.input_tokens
    }

    /// The most that each choice may generate; None if the request does not say.
    #[getter]
    fn max_output(&self) -> Option<u64> {
        self.0.max_output
    }

    /// How many answers are made, at least 1.
    #[getter]
    fn choices(&self) -> u64 {
        self.0.choices
    }

    /// Whether it generates text at all: embeddings, rankings and counts do not.
    #[getter]
    fn generates(&self) -> bool {
        self.0.generates
    }

    /// Bytes of all text in it.
    #[getter]
    fn size(&self) -> u64 {
        self.0.size
    }

    /// What the call costs when the provider admits it.
    ///
    /// `expected_output` counts where `max_tokens` reserves nothing or is not set; `scale` corrects `input_tokens` by what
    /// was learnt. Raises `ValueError` for an unknown provider, `TypeError` or `ValueError` for an amount that cannot be.
    #[pyo3(signature = (provider, expected_output=None, scale=1.0))]
    fn cost(&self, provider: &str, expected_output: Option<&Bound<'_, PyAny>>, scale: f64) -> PyResult<Cost> {
        let expected = given(expected_output).map(|output| amount("expected_output", Some(output), 0)).transpose()?;
        Ok(self.0.cost_scaled(named(provider)?, expected, scale).clamped().into())
    }

    /// What the provider counts in the end of this call, which used so much by its report (`UsageReader.cost`).
    ///
    /// Where a reservation is not known to be given back (`OpenAI` keeps what `max_tokens` reserved), no less than that.
    /// Raises `ValueError` for an unknown provider.
    fn settled(&self, provider: &str, used: &Cost) -> PyResult<Cost> {
        Ok(self.0.settled(named(provider)?, &(*used).into()).into())
    }

    fn __repr__(&self) -> String {
        let call = &self.0;
        let model = call.model.as_deref().unwrap_or("no model");
        let stream = if call.stream { ", streamed" } else { "" };
        format!("<Call of {model}, {} input tokens{stream}>", call.input_tokens)
    }
}

/// Reads a request from its body and the path of its URL, with or without the query.
///
/// A body that is no JSON object is a call without tokens.
#[pyfunction]
pub fn read_call(path: &str, body: &[u8]) -> Call {
    Call(provider::Call::read(path, body, &estimate_tokens))
}

/// Whose API a request goes to, by its host or URL, else by its path.
///
/// That is `"openai"`, `"azure_openai"`, ..., or `"unknown"`.
#[pyfunction]
#[pyo3(signature = (host, path=""))]
pub fn provider_of(host: &str, path: &str) -> &'static str {
    Provider::of_request(host, path).name()
}

/// Whether a request takes nothing from any quota of calls and tokens: lists, look-ups, files, cancellations.
#[pyfunction]
pub fn is_free(method: &str, path: &str) -> bool {
    provider::is_free(method, path)
}

/// The same body, which also asks for the usage at the end of its stream; None when there is nothing to ask.
///
/// That is: when it asks already, when it is no stream, and when the provider tells by itself or refuses to be asked.
#[pyfunction]
pub fn ask_for_usage<'py>(
    py: Python<'py>,
    provider: &str,
    path: &str,
    body: &[u8],
) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let asking = streaming::ask_for_usage(named(provider)?, path, body);
    Ok(asking.map(|body| PyBytes::new(py, &body)))
}

/// Takes the event that only reports usage out of a stream whose caller did not ask for it.
#[pyclass(frozen, module = "penstock")]
pub struct UsageFilter(Mutex<streaming::UsageFilter>);

#[pymethods]
impl UsageFilter {
    #[new]
    fn new() -> Self {
        Self(Mutex::default())
    }

    /// The bytes to hand on when these have come: whole events.
    fn feed<'py>(&self, py: Python<'py>, chunk: &[u8]) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.lock().feed(chunk))
    }

    /// What is left to hand on when the stream has ended.
    fn end<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.lock().end())
    }
}

/// Reads the usage in an answer, and an error inside it, from its decoded body as that comes.
#[pyclass(frozen, module = "penstock")]
pub struct UsageReader {
    pub reader: Mutex<provider::UsageReader>,
    json: bool,
    encoding: String,
}

impl UsageReader {
    /// A reader of an answer with these headers.
    pub fn of(provider: Provider, model: Option<&str>, headers: Headers<'_>) -> Self {
        let latin = |value: &[u8]| value.iter().map(|byte| char::from(*byte)).collect::<String>();
        let kind = headers.get("content-type").map(latin).unwrap_or_default().to_ascii_lowercase();
        let encoding = headers.get("content-encoding").map(latin).unwrap_or_default();
        // Of the others the headers need not tell what an answer used, or whose it is.
        let told = matches!(provider, Provider::Bedrock | Provider::Unknown);
        let headers = if told { headers } else { Headers::unseen() };
        Self {
            reader: Mutex::new(provider::UsageReader::new(provider, model, &kind, headers)),
            json: kind.contains("json") && !["ndjson", "jsonl", "stream"].iter().any(|form| kind.contains(form)),
            encoding: if encoding.eq_ignore_ascii_case("identity") { String::new() } else { encoding },
        }
    }
}

#[pymethods]
impl UsageReader {
    #[new]
    #[pyo3(signature = (provider, model=None, content_type="", headers=None))]
    fn new(
        provider: &str,
        model: Option<&str>,
        content_type: &str,
        headers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let pairs = given(headers).map(Pairs::of).transpose()?;
        let borrowed = pairs.as_ref().map(Pairs::borrowed);
        let headers = borrowed.as_ref().map_or(Headers::unseen(), |pairs| Headers::new(pairs));
        let reader = provider::UsageReader::new(named(provider)?, model, content_type, headers);
        Ok(Self { reader: Mutex::new(reader), json: false, encoding: String::new() })
    }

    /// Whether its headers say that the answer is one piece of JSON.
    #[getter]
    fn json(&self) -> bool {
        self.json
    }

    /// How its headers say that the body is compressed; empty if it is not.
    #[getter]
    fn encoding(&self) -> &str {
        &self.encoding
    }

    /// Takes in the next bytes of the body, decompressed and cut anywhere.
    fn feed(&self, chunk: &[u8]) {
        self.reader.lock().feed(chunk, epoch());
    }

    /// What the call cost as the provider counts, as far as it has been reported; None before that.
    fn cost(&self) -> Option<Cost> {
        self.reader.lock().cost().map(|cost| cost.clamped().into())
    }

    /// Output tokens so far, estimated from the text that has come.
    fn estimate(&self) -> u64 {
        self.reader.lock().estimate()
    }

    /// What an error inside the answer means; None if there was none.
    fn verdict(&self) -> Option<Verdict> {
        self.reader.lock().error().cloned().map(Verdict)
    }

    /// Whose answer it is: as given, or as its headers show.
    #[getter]
    fn provider(&self) -> &'static str {
        self.reader.lock().provider().name()
    }
}

/// A limit as a rate of the shape in which a provider enforces it.
///
/// `per` is in seconds. A limit per minute leaves room where shorter windows are enforced inside. Raises `TypeError` or
/// `ValueError` for an argument that cannot be, with its name `name`.
#[pyfunction]
pub fn provider_rate(
    provider: &str,
    name: &str,
    dimension: &str,
    amount: &Bound<'_, PyAny>,
    per: &Bound<'_, PyAny>,
) -> PyResult<Rate> {
    let profile = named(provider)?.profile();
    let dimension = Dimension::from_name(dimension).unwrap_or(Dimension::Requests);
    let amount = whole(name, amount, 1, rate::Rate::MAX_AMOUNT)?;
    let period = seconds("per", per)?;
    let rate =
        if period == MINUTE { profile.per_minute(dimension, amount) } else { profile.rate(dimension, amount, period) };
    rate.map(Rate)
        .ok_or_else(|| PyValueError::new_err(format!("per must be from 0.001 seconds to 366 days, not {per}")))
}
