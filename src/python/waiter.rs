//! A call that waits: awaited in an event loop, or parked by a thread.
//!
//! Whatever ends a wait gives back what it had: a waiter that is cancelled while it waits leaves the queue; one that was
//! granted and is cancelled before it resumed gives its grant back. An [`Acquire`] that nobody awaits does the same when
//! it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;

use crate::clock::{self, Nanos};
use crate::gate::Outcome;
use crate::queue::Ticket;

use super::budget::{Charge, refused_within};
use super::cached::{Cached, intern};
use super::convert::to_seconds;
use super::driver::Driver;
use super::ending::at_end;
use super::event_loop::{self, LoopId};
use super::permit::{Nested, Permit};
use super::scope::Entering;

/// Where a waiter stands.
enum State {
    /// In the queue; nobody sleeps on it yet. When its time to wait is over; never, if this is the end of time.
    Queued(Nanos),
    /// A task sleeps on this future.
    Loop(LoopId, Py<PyAny>),
    /// A thread sleeps on a lock.
    Thread(Box<Sleep>),
    /// Decided, and not yet taken.
    Settled(Box<Outcome>),
    /// Taken, or given up.
    Done,
}

struct Sleep {
    lock: Py<PyAny>,
    /// When the thread wakes by itself; never, if this is the end of time.
    until: Nanos,
    /// When its time to wait is over; likewise.
    deadline: Nanos,
}

/// What a call waits inside of: a permit, budgets. Dropped, it gives back what it had of these.
struct Inside {
    nested: Option<Nested>,
    charge: Option<Box<Charge>>,
}

struct Standing {
    state: State,
    inside: Option<Box<Inside>>,
}

/// A place in the queue, of a task or of a thread, which hold it in an `Acquire`.
///
/// There may be a million of them: it takes 64 bytes, as an object of Python.
#[pyclass(frozen, module = "penstock._core")]
pub struct Waiter {
    driver: Arc<Driver>,
    ticket: AtomicU64,
    standing: Mutex<Standing>,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Waiter>() == 48);

/// What to do for a waiter whose outcome has come.
pub enum Delivery {
    /// It will see when it looks.
    Unparked,
    /// It was given up; the outcome comes back.
    Refused(Outcome),
    /// Wake this loop's task.
    Loop(LoopId, Py<PyAny>),
    /// Wake this thread.
    Thread(Py<PyAny>),
}

/// Where a waiter sleeps.
pub enum Parked {
    Nowhere,
    Loop(LoopId),
    Thread(Py<PyAny>, Nanos),
}

impl Waiter {
    /// A waiter that is not queued yet.
    pub fn new(driver: &Arc<Driver>) -> Self {
        Self {
            driver: Arc::clone(driver),
            ticket: AtomicU64::new(u64::MAX),
            standing: Mutex::new(Standing { state: State::Queued(Nanos::MAX), inside: None }),
        }
    }

    /// Its name in the queue, and when its time to wait is over.
    pub fn queue(&self, ticket: Ticket, deadline: Nanos) {
        self.ticket.store(ticket.to_bits(), Ordering::Relaxed);
        self.standing.lock().state = State::Queued(deadline);
    }

    /// The permit it waits inside of, and what it has taken from budgets.
    pub fn nest(&self, nested: Option<Nested>, charge: Option<Box<Charge>>) {
        if nested.is_some() || charge.is_some() {
            self.standing.lock().inside = Some(Box::new(Inside { nested, charge }));
        }
    }

    fn ticket(&self) -> Ticket {
        Ticket::from_bits(self.ticket.load(Ordering::Relaxed))
    }

    /// Takes the outcome.
    pub fn deliver(&self, outcome: Outcome) -> Delivery {
        let mut standing = self.standing.lock();
        match std::mem::replace(&mut standing.state, State::Done) {
            State::Done => Delivery::Refused(outcome),
            before => {
                standing.state = State::Settled(Box::new(outcome));
                match before {
                    State::Loop(id, future) => Delivery::Loop(id, future),
                    State::Thread(sleep) => Delivery::Thread(sleep.lock),
                    _ => Delivery::Unparked,
                }
            }
        }
    }

    /// Where it sleeps.
    pub fn parked(&self, py: Python<'_>) -> Parked {
        match &self.standing.lock().state {
            State::Loop(id, _) => Parked::Loop(*id),
            State::Thread(sleep) => Parked::Thread(sleep.lock.clone_ref(py), sleep.until),
            _ => Parked::Nowhere,
        }
    }

    /// Whether it sleeps in that loop.
    pub fn is_parked_in(&self, id: LoopId) -> bool {
        matches!(&self.standing.lock().state, State::Loop(own, _) if *own == id)
    }

    /// Gives back what it had of the permit and the budgets that it waited inside of.
    fn uncover(&self) {
        let inside = self.standing.lock().inside.take();
        drop(inside); // not under the lock: its end may run anything
    }

    /// It is over. Gives where it stood.
    fn finish(&self) -> State {
        std::mem::replace(&mut self.standing.lock().state, State::Done)
    }

    /// Ends it without a word, since its loop is gone. Gives what was decided and not taken.
    pub fn bury(&self) -> Option<Outcome> {
        let before = self.finish();
        self.uncover();
        match before {
            State::Settled(outcome) => Some(*outcome),
            _ => None,
        }
    }

    /// Gives up: leaves the queue, or gives the grant back.
    pub fn cancel(&self, py: Python<'_>) {
        let parked = match self.finish() {
            State::Done => return,
            State::Settled(outcome) => {
                let came_back = self.driver.abandon(*outcome);
                self.uncover();
                if came_back {
                    self.driver.pump(py);
                }
                return;
            }
            State::Loop(id, _) => Some(id),
            State::Queued(_) | State::Thread(_) => None,
        };
        let (handle, waiting) = {
            let mut gate = self.driver.gate.lock();
            (gate.cancel(clock::now(), self.ticket()), gate.waiting())
        };
        drop(handle);
        self.uncover();
        if waiting > 0 {
            self.driver.pump(py);
        }
        if let Some(id) = parked {
            self.driver.unpark(py, id);
        }
    }

    /// The permit, or the error, if it is decided.
    fn take(&self, py: Python<'_>) -> Option<PyResult<Py<Permit>>> {
        let (outcome, inside) = {
            let mut standing = self.standing.lock();
            match std::mem::replace(&mut standing.state, State::Done) {
                State::Settled(outcome) => (*outcome, standing.inside.take()),
                before => {
                    standing.state = before;
                    return None;
                }
            }
        };
        let (nested, charge) = inside.map_or((None, None), |inside| (inside.nested, inside.charge));
        Some(match outcome {
            Ok(grant) => Permit::new(py, &self.driver, grant, nested, charge),
            Err(refusal) => Err(refused_within(py, &self.driver.name, &refusal, charge.as_deref())),
        })
    }

    /// One step of the task that awaits it: the permit, or a future to sleep on. After an error it no longer waits.
    pub fn step(slf: &Bound<'_, Self>) -> PyResult<Step> {
        Self::take_or_park(slf).inspect_err(|_| slf.get().cancel(slf.py()))
    }

    fn take_or_park(slf: &Bound<'_, Self>) -> PyResult<Step> {
        let (py, this) = (slf.py(), slf.get());
        if let Some(result) = this.take(py) {
            return result.map(Step::Done);
        }
        if matches!(this.standing.lock().state, State::Done) {
            return Err(PyRuntimeError::new_err("this wait is over: a permit can be awaited once"));
        }
        let Some(event_loop) = event_loop::running(py) else {
            return Err(PyRuntimeError::new_err("a limiter was awaited outside of a running event loop"));
        };
        this.driver.sweep_if_new(py, &event_loop);
        let future = event_loop.call_method0(intern!(py, "create_future"))?;
        future.setattr(intern!(py, "_asyncio_future_blocking"), true)?;
        let id = this.driver.park(&event_loop)?;
        let before = {
            let mut standing = this.standing.lock();
            match &standing.state {
                // Decided while the future was made.
                State::Settled(_) => None,
                _ => Some(std::mem::replace(&mut standing.state, State::Loop(id, future.clone().unbind()))),
            }
        };
        match before {
            None => {
                this.driver.unpark(py, id);
                return this.take(py).unwrap_or_else(|| Err(over())).map(Step::Done);
            }
            Some(State::Loop(id, _)) => this.driver.unpark(py, id), // resumed by someone else's hand
            Some(_) => {}
        }
        this.driver.arm_here(py, &event_loop, id)?;
        if this.driver.remote.is_some() {
            // It asks when all have come that come now.
            event_loop::soon(&this.driver, &event_loop, id)?;
        }
        Ok(Step::Sleep(future.unbind()))
    }
}

fn over() -> PyErr {
    PyRuntimeError::new_err("this wait is over: a permit can be awaited once")
}

/// What a step of a waiter gives.
pub enum Step {
    /// The permit.
    Done(Py<Permit>),
    /// Sleep on this future.
    Sleep(Py<PyAny>),
}

impl Waiter {
    /// How long a thread is to sleep on `lock`, in seconds, or None when it is decided. A negative number is until it is
    /// released.
    fn park(&self, py: Python<'_>, lock: Py<PyAny>) -> PyResult<Option<f64>> {
        if let Some(remote) = &self.driver.remote {
            remote.watch_threads(&self.driver, py)?;
        }
        self.driver.pump(py);
        let mut lock = Some(lock);
        loop {
            let expected = self.driver.expected(self.ticket()).unwrap_or(Nanos::MAX);
            let sleeps = {
                let state = &mut self.standing.lock().state;
                match state {
                    State::Settled(_) | State::Done => return Ok(None),
                    State::Thread(sleep) => {
                        let until = expected.min(sleep.deadline);
                        let unchanged = lock.is_none() && sleep.until <= until;
                        if let Some(lock) = lock.take() {
                            sleep.lock = lock;
                        }
                        sleep.until = until;
                        unchanged.then_some(until)
                    }
                    State::Queued(_) | State::Loop(..) => {
                        let deadline = if let State::Queued(deadline) = state { *deadline } else { Nanos::MAX };
                        if let Some(lock) = lock.take() {
                            *state = State::Thread(Box::new(Sleep { lock, until: expected.min(deadline), deadline }));
                        }
                        None
                    }
                }
            };
            // Once more, in case it became the next while it lay down.
            if let Some(until) = sleeps {
                if self.driver.has_news() {
                    self.driver.pump(py);
                    continue;
                }
                let seconds = if until == Nanos::MAX { -1.0 } else { to_seconds(until.saturating_sub(clock::now())) };
                return Ok(Some(seconds));
            }
        }
    }
}

#[pymethods]
impl Waiter {
    fn __repr__(&self) -> String {
        let state = match &self.standing.lock().state {
            State::Queued(_) | State::Loop(..) | State::Thread(_) => "waiting",
            State::Settled(_) => "decided",
            State::Done => "over",
        };
        format!("<Waiter of limiter {:?}, {state}>", self.driver.name)
    }
}

/// The exception that was thrown in, from the one or the three arguments of `throw`.
pub fn thrown(kind: &Bound<'_, PyAny>, value: Option<Bound<'_, PyAny>>, traceback: Option<Bound<'_, PyAny>>) -> PyErr {
    let py = kind.py();
    let value = match value {
        Some(value) if !value.is_none() => value,
        _ if kind.is_instance_of::<pyo3::types::PyType>() => match kind.call0() {
            Ok(value) => value,
            Err(error) => return error,
        },
        _ => kind.clone(),
    };
    if let Some(traceback) = traceback.filter(|traceback| !traceback.is_none())
        && let Err(error) = value.call_method1(intern!(py, "with_traceback"), (traceback,))
    {
        return error;
    }
    PyErr::from_value(value)
}

/// What one gets who must wait: a task awaits it, once; a thread parks on it.
///
/// Dropped before it is through, it gives up: Python up to 3.12 drops what a closed async generator awaits without a word
/// to it.
#[pyclass(frozen, subclass, module = "penstock._core")]
pub struct Acquire {
    waiter: Py<Waiter>,
    awaited: AtomicBool,
}

impl Acquire {
    pub fn new(waiter: Py<Waiter>) -> Self {
        Self { waiter, awaited: AtomicBool::new(false) }
    }

    /// The permit, whose block has begun if it was for one.
    fn begun(slf: &Bound<'_, Self>, permit: Py<Permit>) -> PyResult<Py<Permit>> {
        if let Ok(block) = slf.cast::<Entering>() {
            block.get().begin(permit.bind(slf.py()))?;
        }
        Ok(permit)
    }
}

#[pymethods]
impl Acquire {
    fn __await__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        if this.awaited.swap(true, Ordering::Relaxed) {
            return Err(over());
        }
        if event_loop::running(py).is_some() {
            return Ok(slf.clone().into_any());
        }
        let foreign = py.import(intern!(py, "penstock._parking"))?.getattr(intern!(py, "foreign"))?;
        foreign.call1((slf,))?.call_method0(intern!(py, "__await__"))
    }

    fn __next__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        match Waiter::step(slf.get().waiter.bind(slf.py()))? {
            Step::Sleep(future) => Ok(future),
            Step::Done(permit) => Err(PyStopIteration::new_err(Self::begun(slf, permit)?)),
        }
    }

    /// One step of the task that awaits it; the value says nothing.
    fn send(slf: &Bound<'_, Self>, value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let _ = value;
        Self::__next__(slf)
    }

    /// Gives up, as `close` does, and raises what was thrown in.
    #[pyo3(signature = (kind, value=None, traceback=None))]
    fn throw(
        &self,
        kind: &Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        self.waiter.get().cancel(kind.py());
        Err(thrown(kind, value, traceback))
    }

    /// Gives up: leaves the queue, or gives back what was granted. Harmless when it is over.
    fn close(&self, py: Python<'_>) {
        self.waiter.get().cancel(py);
    }

    /// For a thread: how long to sleep on `lock`, in seconds, or None when it is decided.
    ///
    /// A negative number is until it is released.
    fn park(&self, py: Python<'_>, lock: Py<PyAny>) -> PyResult<Option<f64>> {
        self.waiter.get().park(py, lock)
    }

    /// For a thread: the permit, once it is decided.
    fn result(slf: &Bound<'_, Self>) -> PyResult<Py<Permit>> {
        let permit = slf.get().waiter.get().take(slf.py()).unwrap_or_else(|| Err(over()))?;
        Self::begun(slf, permit)
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        at_end(|py| self.waiter.get().cancel(py));
    }
}

/// A coroutine that gives a permit at once: cheaper to await than anything that ends by raising `StopIteration`.
pub fn given(py: Python<'_>, permit: Py<Permit>) -> PyResult<Py<PyAny>> {
    static GIVEN: Cached<Py<PyAny>> = Cached::new();
    let given = GIVEN.get_or_make(|| Ok(py.import("penstock._parking")?.getattr("given")?.unbind()))?;
    given.bind(py).call1((permit,)).map(Bound::unbind)
}
