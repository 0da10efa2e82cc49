//! `Limiter` in Python: the base of `penstock.Limiter`, which adds decorators and fan-out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::clock;
use crate::cost::{Cost, Dimension};
use crate::gate::Config;
use crate::keys::PerKey;
use crate::learner::Learner;
use crate::ledger::{Level, MOST_RATES};
use crate::pace::FULL;
use crate::provider::{Provider, Usage};
use crate::rate;
use crate::stats::Labels;

use super::arguments::{self, Argument, LIMITS};
use super::convert::{self, given, one_of, optional_seconds, seconds, shown, text, to_seconds, whole};
use super::driver::{Driver, Entry};
use super::governed;
use super::permit::Permit;
use super::provider::{Call, UsageReader, named};
use super::rate::rates;
use super::request::{Given, Request};
use super::scope::{self, Blocks, Ready, Scope};
use super::store::Place;
use super::verdict::Verdict;
use super::waiter::Acquire;

type Any<'a, 'py> = Option<&'a Bound<'py, PyAny>>;

const MOST: u64 = 1_000_000_000;

/// A named set of rates and a concurrency: what decides when calls may leave.
///
/// The base of `penstock.Limiter`, which adds decorators and fan-out and documents the arguments.
#[pyclass(frozen, subclass, module = "penstock._core")]
pub struct Limiter {
    pub driver: Arc<Driver>,
    store: String,
    /// Whose limits it finds out.
    provider: Option<Provider>,
    /// Whether calls are charged for tokens.
    counts: AtomicBool,
    one: Request,
    blocks: Arc<Blocks>,
    learner: Mutex<Learner>,
    labels: Mutex<Labels>,
}

fn limits(values: [(Dimension, Any<'_, '_>); 4]) -> PyResult<Vec<(Dimension, rate::Rate)>> {
    let mut limits = Vec::new();
    for (dimension, value) in values {
        if let Some(value) = given(value) {
            limits.extend(rates(dimension.name(), value)?.into_iter().map(|rate| (dimension, rate)));
        }
    }
    Ok(limits)
}

fn bounded(name: &str, value: Any<'_, '_>, least: u64) -> PyResult<Option<u64>> {
    given(value).map(|value| whole(name, value, least, MOST)).transpose()
}

fn per_key(value: &Bound<'_, PyAny>) -> PyResult<PerKey> {
    let wrong = || {
        let message = "per_key must be a dict of requests, tokens, input_tokens, output_tokens and concurrency, not";
        PyTypeError::new_err(format!("{message} {}", shown(value)))
    };
    let mut limits = PerKey::default();
    for (name, value) in value.cast::<PyDict>().map_err(|_| wrong())? {
        let name: String = name.extract().map_err(|_| wrong())?;
        if name == "concurrency" {
            limits.concurrency = bounded("per_key['concurrency']", Some(&value), 1)?;
        } else if let Some(dimension) = Dimension::from_name(&name) {
            if !value.is_none() {
                let rates = rates(&format!("per_key['{name}']"), &value)?;
                limits.rates.extend(rates.into_iter().map(|rate| (dimension, rate)));
            }
        } else {
            let hint = arguments::hint(value.py(), &name, LIMITS)?;
            return Err(PyValueError::new_err(format!("per_key has an unknown dimension '{name}'; {hint}")));
        }
    }
    Ok(limits)
}

fn fresh_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("limiter-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Limiter {
    fn note_dimensions(&self) {
        let gate = self.driver.gate.lock();
        let counts = Dimension::ALL[1..].iter().any(|&dimension| gate.counts_dimension(dimension));
        // A limit on tokens may yet be told.
        let counts = counts || self.provider.is_some();
        self.counts.store(counts, Ordering::Relaxed);
    }

    /// Whether anything counts the tokens of calls.
    pub fn counts(&self) -> bool {
        self.counts.load(Ordering::Relaxed) || super::budget::counts_tokens()
    }

    /// What is known of a model: the factor of its estimated input, and its usual output.
    pub fn expected(&self, model: Option<&str>, provider: Provider) -> (f64, Option<u64>) {
        let (learner, model) = (self.learner.lock(), model.unwrap_or_default());
        (learner.scale(model), learner.output(model, provider.profile().expected_share()))
    }

    /// Takes in what a call was reported to have used.
    pub fn learn_from(&self, call: &Call, usage: &Usage) {
        let model = call.0.model.as_deref().unwrap_or_default();
        self.learner.lock().learn(model, call.0.input_tokens, call.0.choices, usage);
    }

    /// Takes in what an answer means to the call that left with that permit, if it had one.
    pub fn hear(&self, py: Python<'_>, verdict: &Verdict, permit: Option<&Permit>) {
        let mut settled = Vec::new();
        let reading = verdict.with_reset();
        self.driver.gate.lock().observe(clock::now(), &reading, permit.map(Permit::charged_at), &mut settled);
        self.driver.settle(py, settled);
    }

    /// A permit, or what a task awaits and a thread sleeps on to get one.
    fn now_or_later(&self, py: Python<'_>, request: &Request) -> PyResult<Py<PyAny>> {
        match self.driver.admit(py, request)? {
            Entry::Now(permit) => Ok(permit.into_any()),
            Entry::Later(waiter) => Ok(Py::new(py, Acquire::new(waiter))?.into_any()),
        }
    }
}

#[pymethods]
impl Limiter {
    #[new]
    #[pyo3(signature = (*, requests=None, tokens=None, input_tokens=None, output_tokens=None, concurrency=None,
        per_key=None, name=None, store=None, network_jitter=None, max_waiting=None, on_store_failure=None,
        on_conflict=None, provider=None),
        text_signature = "(*, requests=None, tokens=None, input_tokens=None, output_tokens=None, concurrency=None, \
        per_key=None, name=None, store='memory://', network_jitter=None, max_waiting=None, on_store_failure='share', \
        on_conflict='error', provider=None)")]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        requests: Any<'_, '_>,
        tokens: Any<'_, '_>,
        input_tokens: Any<'_, '_>,
        output_tokens: Any<'_, '_>,
        concurrency: Any<'_, '_>,
        per_key: Any<'_, '_>,
        name: Any<'_, '_>,
        store: Any<'_, '_>,
        network_jitter: Any<'_, '_>,
        max_waiting: Any<'_, '_>,
        on_store_failure: Any<'_, '_>,
        on_conflict: Any<'_, '_>,
        provider: Any<'_, '_>,
    ) -> PyResult<Self> {
        let known = |name, value: Any<'_, '_>, allowed: &[&str]| match given(value) {
            Some(value) => one_of(name, value, allowed),
            None => Ok(allowed.first().copied().unwrap_or_default().to_owned()),
        };
        let policy = known("on_store_failure", on_store_failure, &["share", "open", "closed"])?;
        let store = given(store).map_or_else(|| Ok("memory://".to_owned()), |url| text("store", url))?;
        let place = Place::of(&store)?;
        let provider = given(provider).map(|name| named(&text("provider", name)?)).transpose()?;
        let conflict = known("on_conflict", on_conflict, &["error", "keep", "replace"])?;
        // What other processes have found out is no conflict.
        let on_conflict = if provider.is_some() && given(on_conflict).is_none() { "keep".to_owned() } else { conflict };
        let name = given(name).map(|name| text("name", name)).transpose()?;
        if name.as_ref().is_some_and(String::is_empty) {
            return Err(PyValueError::new_err("name must not be empty; leave it out for one of its own"));
        }
        let config = Config {
            rates: limits([
                (Dimension::Requests, requests),
                (Dimension::Tokens, tokens),
                (Dimension::InputTokens, input_tokens),
                (Dimension::OutputTokens, output_tokens),
            ])?,
            concurrency: bounded("concurrency", concurrency, 1)?,
            per_key: given(per_key).map(self::per_key).transpose()?,
            network_jitter: optional_seconds("network_jitter", network_jitter)?,
            max_waiting: bounded("max_waiting", max_waiting, 0)?.and_then(|most| usize::try_from(most).ok()),
            discover: provider,
        };
        let name = place.name(name)?.unwrap_or_else(fresh_name);
        let gate = place.gate(py, config, &on_conflict, &policy)?;
        let driver = Driver::new(name, gate, place.remote(&policy));
        let limiter = Self {
            driver,
            store,
            provider,
            counts: AtomicBool::new(false),
            one: Request::one(),
            blocks: Arc::default(),
            learner: Mutex::default(),
            labels: Mutex::default(),
        };
        limiter.note_dimensions();
        Ok(limiter)
    }

    /// What messages and numbers call it.
    #[getter]
    fn name(&self) -> &str {
        &self.driver.name
    }

    /// Where the ledger is kept, as a URL.
    #[getter]
    fn store(&self) -> &str {
        &self.store
    }

    /// Whose quota it is; None for a limiter of no provider in particular.
    #[getter]
    fn provider(&self) -> Option<&'static str> {
        self.provider.map(Provider::name)
    }

    /// A permit for a block, for `with` and `async with`; nothing is asked for before the block begins.
    ///
    /// The block gets a `Permit`, which is given back when the block ends. Costs are estimates, whole numbers from 0;
    /// `timeout` is in seconds, and 0 is now or never.
    ///
    /// Raises `TypeError` or `ValueError` for an argument that cannot be. Entering raises `AcquireTimeout`,
    /// `CostExceedsLimit` or `QueueFull`.
    #[pyo3(
        signature = (tokens=Argument::left_out(), *, requests=Argument::left_out(), input_tokens=Argument::left_out(),
            output_tokens=Argument::left_out(), key=None, priority=None, timeout=None),
        text_signature = "($self, tokens=0, *, requests=1, input_tokens=0, output_tokens=0, key=None, priority=0, \
            timeout=None)"
    )]
    #[allow(clippy::too_many_arguments)]
    fn permit(
        &self,
        tokens: Argument<'_, '_>,
        requests: Argument<'_, '_>,
        input_tokens: Argument<'_, '_>,
        output_tokens: Argument<'_, '_>,
        key: Any<'_, '_>,
        priority: Any<'_, '_>,
        timeout: Any<'_, '_>,
    ) -> PyResult<Scope> {
        let (tokens, requests) = (tokens.given(), requests.given());
        let (input_tokens, output_tokens) = (input_tokens.given(), output_tokens.given());
        let given = Given { tokens, requests, input_tokens, output_tokens, key, priority, timeout };
        Ok(Scope::new(&self.driver, Request::new(&given)?))
    }

    /// For `acquire`: a permit, or what `penstock._parking.park` sleeps on. Raises what `acquire` does.
    #[allow(clippy::too_many_arguments)]
    fn ask(
        &self,
        py: Python<'_>,
        tokens: &Bound<'_, PyAny>,
        requests: &Bound<'_, PyAny>,
        input_tokens: &Bound<'_, PyAny>,
        output_tokens: &Bound<'_, PyAny>,
        key: &Bound<'_, PyAny>,
        priority: &Bound<'_, PyAny>,
        timeout: &Bound<'_, PyAny>,
    ) -> PyResult<Py<PyAny>> {
        let given = Given {
            tokens: Some(tokens),
            requests: Some(requests),
            input_tokens: Some(input_tokens),
            output_tokens: Some(output_tokens),
            key: Some(key),
            priority: Some(priority),
            timeout: Some(timeout),
        };
        self.now_or_later(py, &Request::new(&given)?)
    }

    /// As `ask`, for a governed call: at what it is expected to cost.
    ///
    /// Raises `ValueError` for an unknown provider, too.
    fn ask_for(
        &self,
        py: Python<'_>,
        call: &Call,
        provider: &str,
        key: Any<'_, '_>,
        priority: Any<'_, '_>,
        timeout: Any<'_, '_>,
    ) -> PyResult<Py<PyAny>> {
        let request = Request {
            cost: governed::expected(self, call, provider)?,
            key: convert::key(key)?,
            priority: convert::priority(priority)?,
            timeout: optional_seconds("timeout", timeout)?,
        };
        self.now_or_later(py, &request)
    }

    /// The twin of `acquire` for tasks: await what it gives, once. Dropped or cancelled, it leaves the queue.
    ///
    /// Arguments as in `permit`. Raises `AcquireTimeout`, `CostExceedsLimit` or `QueueFull`, at once or when awaited.
    #[pyo3(
        signature = (tokens=Argument::left_out(), *, requests=Argument::left_out(), input_tokens=Argument::left_out(),
            output_tokens=Argument::left_out(), key=None, priority=None, timeout=None),
        text_signature = "($self, tokens=0, *, requests=1, input_tokens=0, output_tokens=0, key=None, priority=0, \
            timeout=None)"
    )]
    #[allow(clippy::too_many_arguments)]
    fn aacquire(
        &self,
        py: Python<'_>,
        tokens: Argument<'_, '_>,
        requests: Argument<'_, '_>,
        input_tokens: Argument<'_, '_>,
        output_tokens: Argument<'_, '_>,
        key: Any<'_, '_>,
        priority: Any<'_, '_>,
        timeout: Any<'_, '_>,
    ) -> PyResult<Py<PyAny>> {
        let (tokens, requests) = (tokens.given(), requests.given());
        let (input_tokens, output_tokens) = (input_tokens.given(), output_tokens.given());
        let given = Given { tokens, requests, input_tokens, output_tokens, key, priority, timeout };
        match self.driver.admit(py, &Request::new(&given)?)? {
            Entry::Now(permit) => super::waiter::given(py, permit),
            Entry::Later(waiter) => Ok(Py::new(py, Acquire::new(waiter))?.into_any()),
        }
    }

    /// A permit if there is one now, else None. Arguments as in `permit`, but nothing waits.
    ///
    /// Raises `CostExceedsLimit` for what no wait could satisfy.
    #[pyo3(
        signature = (tokens=Argument::left_out(), *, requests=Argument::left_out(), input_tokens=Argument::left_out(),
            output_tokens=Argument::left_out(), key=None, priority=None),
        text_signature = "($self, tokens=0, *, requests=1, input_tokens=0, output_tokens=0, key=None, priority=0)"
    )]
    #[allow(clippy::too_many_arguments)]
    fn try_acquire(
        &self,
        py: Python<'_>,
        tokens: Argument<'_, '_>,
        requests: Argument<'_, '_>,
        input_tokens: Argument<'_, '_>,
        output_tokens: Argument<'_, '_>,
        key: Any<'_, '_>,
        priority: Any<'_, '_>,
    ) -> PyResult<Option<Py<Permit>>> {
        let (tokens, requests) = (tokens.given(), requests.given());
        let (input_tokens, output_tokens) = (input_tokens.given(), output_tokens.given());
        let given = Given { tokens, requests, input_tokens, output_tokens, key, priority, timeout: None };
        if self.driver.remote.is_some() {
            return super::remote::try_admit(&self.driver, py, &Request { timeout: Some(0), ..Request::new(&given)? });
        }
        self.driver.try_admit(py, &Request { timeout: Some(0), ..Request::new(&given)? })
    }

    /// For `penstock._parking.enter`: a permit whose block has begun, or what a thread must sleep on first.
    ///
    /// The permit is noted in `entered`, too, for a thread that is interrupted before it knows of it.
    fn enter_now(&self, entered: &Bound<'_, PyList>) -> PyResult<Py<PyAny>> {
        scope::enter(&self.driver, &self.one, &self.blocks, entered)
    }

    /// For `penstock._parking.enter`: ends a block that was not entered after all.
    fn undo(&self, permit: &Bound<'_, Permit>) {
        self.blocks.undo(permit);
    }

    /// For `penstock._parking.enter`: the block begins with the permit that was waited for.
    fn enter_with(&self, permit: &Bound<'_, Permit>) -> PyResult<()> {
        self.blocks.enter(permit)
    }

    #[pyo3(signature = (*_error))]
    fn __exit__(&self, py: Python<'_>, _error: &Bound<'_, PyTuple>) {
        self.blocks.leave(py, &self.driver);
    }

    fn __aenter__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        scope::aenter(py, &self.driver, &self.one, &self.blocks)
    }

    #[pyo3(signature = (*_error))]
    fn __aexit__(&self, py: Python<'_>, _error: &Bound<'_, PyTuple>) -> PyResult<Py<Ready>> {
        self.blocks.leave(py, &self.driver);
        Ready::shared(py)
    }

    /// Lets nothing leave for so many seconds (or a timedelta), for all who wait and all who come.
    ///
    /// A longer cooldown that is under way stays. Raises `TypeError` or `ValueError` unless it is 0 or more.
    #[pyo3(signature = (seconds))]
    fn cooldown(&self, seconds: &Bound<'_, PyAny>) -> PyResult<()> {
        let period = self::seconds("seconds", seconds)?;
        self.driver.gate.lock().cool_down(clock::now(), period);
        self.driver.pump(seconds.py());
        Ok(())
    }

    /// Tells the limiter what the provider said; gives what that means, as a `Verdict`.
    ///
    /// A stated wait holds back everyone who would be refused. `status` is the HTTP status, 0 for no answer at all;
    /// `headers` a mapping or pairs, None when nobody knows them; `body` bytes, str, or what json.dumps takes. Raises
    /// `TypeError` or `ValueError` for anything else.
    #[pyo3(signature = (status, headers, body=None))]
    fn observe(
        &self,
        py: Python<'_>,
        status: &Bound<'_, PyAny>,
        headers: Any<'_, '_>,
        body: Any<'_, '_>,
    ) -> PyResult<Verdict> {
        let verdict = Verdict::read(status, headers, body, self.provider())?;
        self.heed(py, &verdict, None);
        Ok(verdict)
    }

    /// Takes in what an answer means to the call that left with `permit`.
    ///
    /// By default that is the permit that encloses this code.
    #[pyo3(signature = (verdict, permit=None))]
    fn heed(&self, py: Python<'_>, verdict: &Verdict, permit: Option<&Permit>) {
        let enclosing = if permit.is_none() { self.driver.nesting.enclosing(py) } else { None };
        self.hear(py, verdict, permit.or(enclosing.as_ref().map(Py::get)));
    }

    /// Changes limits while calls run and wait; what is not named stays, None takes a limit away.
    ///
    /// What was charged before counts against the new rates. Raises `TypeError` or `ValueError`, and then changes nothing.
    #[pyo3(
        signature = (**limits),
        text_signature = "($self, *, requests=..., tokens=..., input_tokens=..., output_tokens=..., concurrency=...)"
    )]
    fn update(&self, py: Python<'_>, limits: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        let mut concurrency = None;
        let mut changes = Vec::new();
        for (name, value) in limits.into_iter().flatten() {
            let name: String = name.extract()?;
            if name == "concurrency" {
                concurrency = Some(bounded("concurrency", Some(&value), 1)?);
            } else if let Some(dimension) = Dimension::from_name(&name) {
                let fresh = if value.is_none() { Vec::new() } else { rates(&name, &value)? };
                changes.push((dimension, fresh));
            } else {
                arguments::none("limiter.update", LIMITS, limits)?;
            }
        }
        // Everything was looked at before anything is changed.
        let mut settled = Vec::new();
        {
            let mut gate = self.driver.gate.lock();
            let now = clock::now();
            gate.refresh(now);
            let places: Vec<_> = changes.iter().map(|(dimension, fresh)| (*dimension, fresh.len())).collect();
            if !gate.has_places(&places) {
                let message =
                    format!("store {:?} keeps {MOST_RATES} rates at the most; update() asks for more", self.store);
                return Err(PyValueError::new_err(message));
            }
            for (dimension, fresh) in changes {
                gate.update(now, dimension, &fresh, &mut settled);
            }
            if let Some(concurrency) = concurrency {
                gate.set_concurrency(concurrency);
            }
        }
        self.note_dimensions();
        self.driver.settle(py, settled);
        Ok(())
    }

    /// For decorators: the context variable that holds the permit which code runs inside.
    #[getter]
    fn enclosing(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.driver.nesting.object(py)
    }

    /// Whether anything counts the tokens of calls, a budget included: if not, nobody need look for usage.
    #[getter(counts)]
    fn counts_any(&self) -> bool {
        self.counts()
    }

    /// What is known of a model from earlier calls: the factor of its estimated input, and its usual output.
    ///
    /// `provider` decides what is usual: where `max_tokens` reserves nothing, what 95 of 100 calls do not exceed; else
    /// what half of them do not. The output is None while too few calls are known. Raises `ValueError` for an unknown
    /// provider.
    #[pyo3(signature = (model, provider="unknown"))]
    fn expect(&self, model: Option<&str>, provider: &str) -> PyResult<(f64, Option<u64>)> {
        Ok(self.expected(model, named(provider)?))
    }

    /// Takes in what an answer reported that a call used: `expect` and the error in `stats` come from it.
    fn learn(&self, call: &Call, answer: &UsageReader) {
        let usage = answer.reader.lock().usage();
        if let Some(usage) = usage {
            self.learn_from(call, &usage);
        }
    }

    /// A call of that label is over: its numbers are kept under the label, too.
    ///
    /// They are those of `permit`: what it waited, and what it is charged now. One that was given back counts for nothing.
    fn count_label(&self, label: &str, permit: &Permit) {
        if !permit.released() {
            self.labels.lock().add(label, &permit.total(), permit.waited_for());
        }
    }

    /// The numbers that `penstock.Stats` shows.
    fn snapshot<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.driver.sweep_closed(py);
        let now = clock::now();
        let (counts, in_flight, waiting, cooldown, levels, origins, concurrency, keys, speed, waits) = {
            let mut gate = self.driver.gate.lock();
            gate.refresh(now);
            let counts = gate.counts();
            let waits = gate.waits();
            let quantile = |share| to_seconds(waits.quantile(share, counts.granted));
            #[allow(clippy::cast_precision_loss)]
            let waits = (waits.total() as f64 / 1e9, quantile(0.5), quantile(0.99), to_seconds(waits.max()));
            let (in_flight, waiting) = gate.everywhere();
            let in_flight = self.driver.under_way(in_flight);
            let (cooldown, levels) = (to_seconds(gate.cooling(now)), gate.levels(now));
            #[allow(clippy::cast_precision_loss)]
            let speed = gate.speed() as f64 / FULL as f64;
            let origin = |level: &Level| gate.origin(level.dimension, level.rate.period()).name();
            let origins: Vec<_> = levels.iter().map(origin).collect();
            (counts, in_flight, waiting, cooldown, levels, origins, gate.concurrency(), gate.keys(), speed, waits)
        };
        let dict = PyDict::new(py);
        dict.set_item("name", &self.driver.name)?;
        dict.set_item("in_flight", in_flight)?;
        dict.set_item("waiting", waiting)?;
        dict.set_item("granted", counts.granted)?;
        dict.set_item("cancelled", counts.cancelled)?;
        dict.set_item("abandoned", counts.abandoned)?;
        dict.set_item("timeouts", counts.timeouts)?;
        dict.set_item("refused", counts.refused)?;
        dict.set_item("waited", waits.0)?;
        dict.set_item("waited_p50", waits.1)?;
        dict.set_item("waited_p99", waits.2)?;
        dict.set_item("waited_max", waits.3)?;
        dict.set_item("cooldown", cooldown)?;
        dict.set_item("speed", speed)?;
        dict.set_item("concurrency", concurrency)?;
        dict.set_item("keys", keys)?;
        let levels = levels.into_iter().zip(origins).map(|(level, origin)| {
            let rate = super::rate::Rate(level.rate);
            (level.dimension.name(), rate, level.available, level.window, origin)
        });
        dict.set_item("levels", levels.collect::<Vec<_>>())?;
        dict.set_item("estimate_error", self.learner.lock().error())?;
        let labels = PyDict::new(py);
        for (label, share) in self.labels.lock().iter() {
            let (waited, longest) = (to_seconds(share.waited), to_seconds(share.waited_max));
            let Cost { tokens, input_tokens, output_tokens, .. } = share.cost;
            labels.set_item(label, (share.attempts, tokens, input_tokens, output_tokens, waited, longest))?;
        }
        dict.set_item("labels", labels)?;
        Ok(dict)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        self.driver.sweep_closed(py);
        let mut gate = self.driver.gate.lock();
        let now = clock::now();
        gate.refresh(now);
        let (in_flight, waiting) = gate.everywhere();
        let mut parts = Vec::new();
        for level in gate.levels(now) {
            let left = level.available.min(i64::try_from(level.window).unwrap_or(i64::MAX));
            parts.push(format!("{} {} ({left} free)", level.dimension, level.rate));
        }
        if let Some(concurrency) = gate.concurrency() {
            parts.push(format!("concurrency {concurrency}"));
        }
        if parts.is_empty() {
            parts.push("no limits".to_owned());
        }
        parts.push(format!("{} in flight", self.driver.under_way(in_flight)));
        parts.push(format!("{waiting} waiting"));
        let cooling = gate.cooling(now);
        if cooling > 0 {
            parts.push(format!("cooling down for {:.1} s", to_seconds(cooling)));
        }
        format!("<Limiter {:?}: {}>", self.driver.name, parts.join(", "))
    }
}
