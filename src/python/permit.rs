//! The right to make one call now.

use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::clock::{self, Nanos};
use crate::cost;
use crate::gate::Grant;

use super::budget::{Budget, Charge};
use super::convert::{amount, given, to_seconds};
use super::driver::Driver;
use super::ending::at_end;

/// What a call uses in each dimension: an estimate before, the actual amounts after it is settled.
#[pyclass(frozen, eq, hash, get_all, module = "penstock")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cost {
    /// Calls to the provider.
    requests: u64,
    /// Input and output tokens together.
    tokens: u64,
    /// Tokens sent.
    input_tokens: u64,
    /// Tokens received.
    output_tokens: u64,
}

impl From<cost::Cost> for Cost {
    fn from(cost: cost::Cost) -> Self {
        let cost::Cost { requests, tokens, input_tokens, output_tokens } = cost;
        Self { requests, tokens, input_tokens, output_tokens }
    }
}

impl From<Cost> for cost::Cost {
    fn from(cost: Cost) -> Self {
        let Cost { requests, tokens, input_tokens, output_tokens } = cost;
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
    /// Whether the permit outside has been given back what it covers, since the call leaves later than that was charged.
    deferred: bool,
    /// Whether the call has its permit.
    left: bool,
}

impl Nested {
    /// A call comes. Takes what the permit covers, if no other call has.
    pub fn cover(parent: Py<Permit>) -> Self {
        let covered = parent.get().admit_inside();
        Self { parent, covered, deferred: false, left: false }
    }

    /// The permit outside.
    pub fn outside(&self) -> &Permit {
        self.parent.get()
    }

    /// What the nested call need not be charged for.
    pub fn covered(&self) -> cost::Cost {
        if self.deferred { cost::Cost::default() } else { self.covered.unwrap_or_default() }
    }

    /// The call must wait. What the permit outside was charged is taken back, to be charged when the call leaves: a charge
    /// that is older than its departure would let others leave in the same moment.
    pub fn defer(&mut self) {
        if let Some(covered) = self.covered
            && !std::mem::replace(&mut self.deferred, true)
        {
            let parent = self.parent.get();
            parent.recharge(parent.total().minus(covered));
        }
    }

    /// The call has its permit: from here on the cover is used.
    fn spend(mut self) -> Outside {
        let covered = self.covered();
        let taken = self.covered.take().unwrap_or_default();
        self.left = true;
        let permit = Python::attach(|py| self.parent.clone_ref(py));
        permit.get().held.lock().inside = true;
        Outside { permit, covered, used: Mutex::new(covered), deferred: taken.minus(covered) }
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        if let Some(covered) = self.covered {
            let deferred = if self.deferred { covered } else { cost::Cost::default() };
            self.parent.get().uncover(deferred);
        }
        if !self.left {
            self.parent.get().inside_over();
        }
    }
}

/// The permit outside, as a nested one sees it.
struct Outside {
    permit: Py<Permit>,
    /// What it covered when the nested call left.
    covered: cost::Cost,
    /// What of that is charged now: less, if the nested call has settled for less.
    used: Mutex<cost::Cost>,
    /// What it was given back when the nested call had to wait.
    deferred: cost::Cost,
}

/// How far a permit has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Held,
    /// Released before the calls inside were over, for which it keeps its slot.
    Lingers,
    Over,
}

struct Held {
    grant: Grant,
    stage: Stage,
    /// Whether the first call inside may use what was charged.
    cover: bool,
    /// Whether calls inside have settled, or will settle, what was charged.
    inside: bool,
    /// How many calls are under way inside, or wait.
    insiders: u32,
    /// What [`Nesting::open`] gave, while it may enclose code; else 0.
    open: u32,
    /// What ends the block that it is the permit of.
    token: Option<Py<PyAny>>,
    /// What it has taken from the budgets that its code runs inside.
    charge: Option<Box<Charge>>,
}

impl Held {
    /// The grant, to be released, unless calls inside are still under way.
    #[inline]
    fn give_up(&mut self) -> Option<Grant> {
        if self.insiders > 0 {
            self.stage = Stage::Lingers;
            return None;
        }
        self.stage = Stage::Over;
        let grant = self.grant;
        self.grant = grant.released();
        Some(grant)
    }
}

/// The right to make one call now. It is settled and released.
///
/// A context manager that releases at the end of its block. Dropped without release, it gives itself back.
#[pyclass(frozen, module = "penstock")]
pub struct Permit {
    driver: Arc<Driver>,
    held: Mutex<Held>,
    outside: Option<Box<Outside>>,
}

impl Permit {
    /// The permit of a grant.
    #[inline]
    pub fn new(
        py: Python<'_>,
        driver: &Arc<Driver>,
        grant: Grant,
        nested: Option<Nested>,
        charge: Option<Box<Charge>>,
    ) -> PyResult<Py<Self>> {
        Self::make(py, driver, grant, nested, charge, 0)
    }

    /// The permit of a grant that is given to code to run inside it: see [`Permit::open`].
    #[inline]
    pub fn opened(
        py: Python<'_>,
        driver: &Arc<Driver>,
        grant: Grant,
        nested: Option<Nested>,
        charge: Option<Box<Charge>>,
    ) -> PyResult<Py<Self>> {
        Self::make(py, driver, grant, nested, charge, driver.nesting.open())
    }

    #[inline]
    fn make(
        py: Python<'_>,
        driver: &Arc<Driver>,
        grant: Grant,
        nested: Option<Nested>,
        mut charge: Option<Box<Charge>>,
        open: u32,
    ) -> PyResult<Py<Self>> {
        let outside = nested.map(|nested| Box::new(nested.spend()));
        if let Some(charge) = &mut charge {
            charge.spend();
        }
        let held =
            Held { grant, stage: Stage::Held, cover: true, inside: false, insiders: 0, open, token: None, charge };
        Py::new(py, Self { driver: Arc::clone(driver), held: Mutex::new(held), outside })
    }

    /// A call comes inside. Gives what was charged, if that call may use it.
    fn admit_inside(&self) -> Option<cost::Cost> {
        let covers = {
            let mut held = self.held.lock();
            held.insiders += 1;
            std::mem::replace(&mut held.cover, false)
        };
        covers.then(|| self.total())
    }

    /// A call inside never left: the next one is the first. What the permit was given back for it is charged again.
    fn uncover(&self, deferred: cost::Cost) {
        if !deferred.is_free() {
            self.recharge(self.total().plus(deferred));
        }
        self.held.lock().cover = true;
    }

    /// When its call left.
    pub fn charged_at(&self) -> Nanos {
        self.held.lock().grant.charged_at
    }

    /// How long its call waited.
    pub fn waited_for(&self) -> Nanos {
        self.held.lock().grant.waited
    }

    /// Whether it was given back, or is the copy of a parent process's.
    pub fn is_over(&self) -> bool {
        let (grant, stage) = {
            let held = self.held.lock();
            (held.grant, held.stage)
        };
        stage != Stage::Held || !self.driver.gate.lock().counts_grant(&grant)
    }

    /// The permit outside of this one.
    pub fn outside(&self, py: Python<'_>) -> Option<Py<Self>> {
        self.outside.as_ref().map(|outside| outside.permit.clone_ref(py))
    }

    /// A block begins: what it runs from here on runs inside this permit.
    pub fn begin(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.get().open();
        let token = slf.get().driver.nesting.enter(slf)?;
        // What it replaces may be the last to know of a permit inside, which ends then and asks for this lock.
        let replaced = slf.get().held.lock().token.replace(token);
        drop(replaced);
        Ok(())
    }

    /// Gives it back, once, and ends its block.
    #[inline]
    pub fn give_back(&self, py: Python<'_>) {
        let (grant, token) = {
            let mut held = self.held.lock();
            if held.stage != Stage::Held {
                return;
            }
            self.close(&mut held);
            (held.give_up(), held.token.take())
        };
        if let Some(token) = token {
            self.driver.nesting.leave(py, token);
        }
        match grant {
            Some(grant) => self.finish(py, &grant),
            None => self.driver.linger(),
        }
    }

    /// Neither its call nor one inside is under way any more.
    #[inline]
    fn finish(&self, py: Python<'_>, grant: &Grant) {
        self.driver.release(py, grant);
        if let Some(outside) = &self.outside {
            outside.permit.get().inside_over();
        }
    }

    /// A call inside is over, or gave up.
    fn inside_over(&self) {
        let grant = {
            let mut held = self.held.lock();
            held.insiders = held.insiders.saturating_sub(1);
            if held.stage == Stage::Lingers { held.give_up() } else { None }
        };
        if let Some(grant) = grant {
            self.driver.linger_no_more(&grant);
            at_end(|py| self.finish(py, &grant));
        }
    }

    /// It no longer encloses anything.
    #[inline]
    fn close(&self, held: &mut Held) {
        let generation = std::mem::take(&mut held.open);
        if generation != 0 {
            self.driver.nesting.close(generation);
        }
    }

    /// Replaces what is charged in all. The permit outside is charged for as much of it as it covers. Whom that sets free
    /// is for the caller to look after.
    fn recharge(&self, actual: cost::Cost) {
        let mut own = actual;
        if let Some(outside) = &self.outside {
            own = actual.minus(outside.covered);
            let used = actual.minus(own);
            let before = std::mem::replace(&mut *outside.used.lock(), used);
            if used != before {
                let parent = outside.permit.get();
                parent.recharge(parent.total().minus(before).plus(used));
            }
        }
        let mut grant = self.held.lock().grant;
        self.driver.gate.lock().settle(clock::now(), &mut grant, &own);
        let mut held = self.held.lock();
        held.grant = grant;
        if let Some(charge) = &mut held.charge {
            charge.set(&actual, &own);
        }
    }

    /// Replaces the tokens that are charged by those of `used`, as [`Permit::settle`] does.
    pub fn settle_at(&self, py: Python<'_>, used: &cost::Cost) {
        self.settle_as(py, cost::Cost { requests: self.total().requests, ..*used }, true);
    }

    fn settle_as(&self, py: Python<'_>, mut cost: cost::Cost, says_input: bool) {
        // Output is not counted by every provider.
        if says_input && self.driver.gate.lock().counts_input_alone() {
            cost.tokens = cost.input_tokens;
        }
        let inside = {
            let mut held = self.held.lock();
            held.cover = false; // its own call has been made
            held.inside
        };
        // What calls inside have used is theirs to settle.
        if !inside {
            self.recharge(cost);
            self.driver.pump(py);
        }
    }

    /// Whether that budget is charged for its call.
    pub fn is_charged_to(&self, budget: &Py<Budget>) -> bool {
        self.held.lock().charge.as_ref().is_some_and(|charge| charge.is_to(budget))
    }

    /// What is charged in all: with what the permit outside covers of it.
    pub fn total(&self) -> cost::Cost {
        let own = self.held.lock().grant.cost;
        self.outside.as_ref().map_or(own, |outside| own.plus(*outside.used.lock()))
    }
}

#[pymethods]
impl Permit {
    /// Replaces the estimated cost by what the call really used: a refund, or a debit.
    ///
    /// What is left out stays as it was charged; `tokens` becomes the sum when both others are given. Settling again
    /// replaces the cost again, and after the release it still counts. A refund goes to the window that was charged.
    /// Raises `TypeError` or `ValueError` for an amount that cannot be; the estimate stays then.
    #[pyo3(
        signature = (tokens=None, input_tokens=None, output_tokens=None),
        text_signature = "($self, tokens=None, input_tokens=None, output_tokens=None)"
    )]
    fn settle(
        &self,
        py: Python<'_>,
        tokens: Option<&Bound<'_, PyAny>>,
        input_tokens: Option<&Bound<'_, PyAny>>,
        output_tokens: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let charged = self.total();
        let says_input = given(input_tokens).is_some();
        let in_and_out = says_input && given(output_tokens).is_some();
        let input_tokens = amount("input_tokens", given(input_tokens), charged.input_tokens)?;
        let output_tokens = amount("output_tokens", given(output_tokens), charged.output_tokens)?;
        let sum = if in_and_out { input_tokens + output_tokens } else { charged.tokens };
        let tokens = amount("tokens", given(tokens), sum)?;
        let cost = cost::Cost { requests: charged.requests, tokens, input_tokens, output_tokens };
        self.settle_as(py, cost, says_input);
        Ok(())
    }

    /// Gives the permit back. Again is harmless.
    fn release(&self, py: Python<'_>) {
        self.give_back(py);
    }

    /// For fan-out: gives everything back, since its call never left. After its release that changes nothing.
    fn abandon(&self, py: Python<'_>) {
        let (grant, token, charge) = {
            let mut held = self.held.lock();
            if held.stage != Stage::Held {
                return;
            }
            held.stage = Stage::Over;
            self.close(&mut held);
            let grant = held.grant;
            held.grant = grant.released();
            (grant, held.token.take(), held.charge.take())
        };
        if let Some(token) = token {
            self.driver.nesting.leave(py, token);
        }
        if let Some(mut charge) = charge {
            charge.unspend();
        }
        if let Some(outside) = &self.outside {
            outside.permit.get().uncover(outside.deferred);
        }
        if self.driver.abandon(Ok(grant)) {
            self.driver.pump(py);
        }
        if let Some(outside) = &self.outside {
            outside.permit.get().inside_over();
        }
    }

    /// For decorators: says that code will run inside it. Who does so sets the limiter's context variable then.
    #[inline]
    pub fn open(&self) {
        let mut held = self.held.lock();
        if held.open == 0 && held.stage == Stage::Held {
            held.open = self.driver.nesting.open();
        }
    }

    /// For generators: the code that goes on from here does not run inside this permit, until `resume`.
    fn suspend(&self, py: Python<'_>) {
        let token = self.held.lock().token.take();
        if let Some(token) = token {
            self.driver.nesting.leave(py, token);
        }
    }

    /// The code that goes on from here runs inside this permit; without effect on one that was released.
    fn resume(slf: &Bound<'_, Self>) -> PyResult<()> {
        if slf.get().released() { Ok(()) } else { Self::begin(slf) }
    }

    /// How long the call waited for it, in seconds.
    #[getter]
    fn waited(&self) -> f64 {
        to_seconds(self.held.lock().grant.waited)
    }

    /// What the call is charged: the estimate, or what it was settled with.
    #[getter]
    fn cost(&self) -> Cost {
        self.total().into()
    }

    /// Whether it was given back.
    #[getter]
    pub fn released(&self) -> bool {
        self.held.lock().stage != Stage::Held
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_error))]
    fn __exit__(&self, py: Python<'_>, _error: &Bound<'_, pyo3::types::PyTuple>) {
        self.give_back(py);
    }

    fn __repr__(&self) -> String {
        let state = if self.released() { "released" } else { "held" };
        format!("<Permit of limiter {:?}, {}, {state}>", self.driver.name, self.total())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Self { driver, held, outside } = self;
        let held = held.get_mut();
        if held.stage != Stage::Held {
            return;
        }
        // While nobody waits there is nobody to wake, and nothing that needs Python.
        if held.token.is_none() && outside.is_none() && driver.release_unwatched(&held.grant) {
            if held.open != 0 {
                driver.nesting.close(held.open);
            }
            return;
        }
        at_end(|py| self.give_back(py));
    }
}
