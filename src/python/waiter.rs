//! A call that waits: awaited in an event loop, or parked by a thread.
//!
//! Whatever ends a wait gives back what it had: a waiter that is cancelled while it waits leaves the queue; one that was
//! granted and is cancelled before it resumed gives its grant back. An [`Acquire`] that nobody awaits does the same when
//! it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::clock::{self, Nanos};
use crate::gate::Outcome;
use crate::queue::Ticket;

use super::convert::to_seconds;
use super::driver::Driver;
use super::errors::refused;
use super::event_loop::{self, LoopId};
use super::permit::{Nested, Permit};

/// Where a waiter stands.
enum State {
    /// In the queue; nobody sleeps on it yet.
    Queued,
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
}

/// A place in the queue. Awaitable from a task; parked by `penstock._parking` from a thread.
#[pyclass(frozen, module = "penstock._core")]
pub struct Waiter {
    driver: Arc<Driver>,
    ticket: AtomicU64,
    /// When its time to wait is over; never, if this is the end of time.
    deadline: AtomicU64,
    nested: Mutex<Option<Box<Nested>>>,
    state: Mutex<State>,
}

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
            deadline: AtomicU64::new(Nanos::MAX),
            nested: Mutex::new(None),
            state: Mutex::new(State::Queued),
        }
    }

    /// Its name in the queue, and when its time to wait is over.
    pub fn queue(&self, ticket: Ticket, deadline: Nanos) {
        self.ticket.store(ticket.to_bits(), Ordering::Relaxed);
        self.deadline.store(deadline, Ordering::Relaxed);
    }

    /// The permit it waits inside of.
    pub fn nest(&self, nested: Option<Nested>) {
        *self.nested.lock() = nested.map(Box::new);
    }

    fn ticket(&self) -> Ticket {
        Ticket::from_bits(self.ticket.load(Ordering::Relaxed))
    }

    /// Takes the outcome.
    pub fn deliver(&self, outcome: Outcome) -> Delivery {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, State::Done) {
            State::Done => Delivery::Refused(outcome),
            before => {
                *state = State::Settled(Box::new(outcome));
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
        match &*self.state.lock() {
            State::Loop(id, _) => Parked::Loop(*id),
            State::Thread(sleep) => Parked::Thread(sleep.lock.clone_ref(py), sleep.until),
            _ => Parked::Nowhere,
        }
    }

    /// Whether it sleeps in that loop.
    pub fn is_parked_in(&self, id: LoopId) -> bool {
        matches!(&*self.state.lock(), State::Loop(own, _) if *own == id)
    }

    /// Ends it without a word, since its loop is gone. Gives what was decided and not taken.
    pub fn bury(&self) -> Option<Outcome> {
        let before = std::mem::replace(&mut *self.state.lock(), State::Done);
        match before {
            State::Settled(outcome) => Some(*outcome),
            _ => None,
        }
    }

    /// Gives up: leaves the queue, or gives the grant back.
    pub fn cancel(&self, py: Python<'_>) {
        let before = std::mem::replace(&mut *self.state.lock(), State::Done);
        let parked = match before {
            State::Done => return,
            State::Settled(outcome) => {
                if self.driver.abandon(*outcome) {
                    self.driver.pump(py);
                }
                return;
            }
            State::Loop(id, _) => Some(id),
            State::Queued | State::Thread(_) => None,
        };
        let (handle, waiting) = {
            let mut gate = self.driver.gate.lock();
            (gate.cancel(clock::now(), self.ticket()), gate.waiting())
        };
        drop(handle);
        if waiting > 0 {
            self.driver.pump(py);
        }
        if let Some(id) = parked {
            self.driver.unpark(py, id);
        }
    }

    /// The permit, or the error, if it is decided.
    fn take(&self, py: Python<'_>) -> Option<PyResult<Py<Permit>>> {
        let outcome = {
            let mut state = self.state.lock();
            match std::mem::replace(&mut *state, State::Done) {
                State::Settled(outcome) => *outcome,
                before => {
                    *state = before;
                    return None;
                }
            }
        };
        let nested = self.nested.lock().take().map(|nested| *nested);
        Some(match outcome {
            Ok(grant) => Permit::new(py, &self.driver, grant, nested),
            Err(refusal) => Err(refused(py, &self.driver.name, &refusal)),
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
        if matches!(&*this.state.lock(), State::Done) {
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
            let mut state = this.state.lock();
            match &*state {
                // Decided while the future was made.
                State::Settled(_) => None,
                _ => Some(std::mem::replace(&mut *state, State::Loop(id, future.clone().unbind()))),
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

impl Step {
    /// As the iterator protocol wants it.
    pub fn into_next(self) -> PyResult<Py<PyAny>> {
        match self {
            Self::Sleep(future) => Ok(future),
            Self::Done(permit) => Err(PyStopIteration::new_err(permit)),
        }
    }
}

#[pymethods]
impl Waiter {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Self::step(slf)?.into_next()
    }

    fn send(slf: &Bound<'_, Self>, _value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        Self::step(slf)?.into_next()
    }

    #[pyo3(signature = (kind, value=None, traceback=None))]
    fn throw(
        &self,
        kind: &Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let py = kind.py();
        self.cancel(py);
        Err(thrown(kind, value, traceback))
    }

    /// Gives up: leaves the queue, or gives back what was granted. Harmless when it is over.
    fn close(&self, py: Python<'_>) {
        self.cancel(py);
    }

    /// For a thread: how long to sleep on `lock` (seconds; negative: until it is released), or None when it is decided.
    fn park(&self, py: Python<'_>, lock: Py<PyAny>) -> Option<f64> {
        self.driver.pump(py);
        let deadline = self.deadline.load(Ordering::Relaxed);
        let mut lock = Some(lock);
        loop {
            let until = self.driver.expected(self.ticket()).unwrap_or(Nanos::MAX).min(deadline);
            let unchanged = {
                let mut state = self.state.lock();
                match &mut *state {
                    State::Settled(_) | State::Done => return None,
                    State::Thread(sleep) => {
                        let unchanged = lock.is_none() && sleep.until <= until;
                        if let Some(lock) = lock.take() {
                            sleep.lock = lock;
                        }
                        sleep.until = until;
                        unchanged
                    }
                    other => {
                        if let Some(lock) = lock.take() {
                            *other = State::Thread(Box::new(Sleep { lock, until }));
                        }
                        false
                    }
                }
            };
            // Once more, in case it became the next while it lay down.
            if unchanged {
                return Some(if until == Nanos::MAX { -1.0 } else { to_seconds(until.saturating_sub(clock::now())) });
            }
        }
    }

    /// For a thread: the permit, once it is decided.
    fn result(&self, py: Python<'_>) -> PyResult<Py<Permit>> {
        self.take(py).unwrap_or_else(|| Err(over()))
    }

    fn __repr__(&self) -> String {
        let state = match &*self.state.lock() {
            State::Queued | State::Loop(..) | State::Thread(_) => "waiting",
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

/// What one gets who must wait: a task awaits it, once; a thread parks on it. Dropped before that is over, it leaves the
/// queue.
#[pyclass(frozen, module = "penstock._core")]
pub struct Acquire {
    waiter: Mutex<Option<Py<Waiter>>>,
}

impl Acquire {
    pub fn new(waiter: Py<Waiter>) -> Self {
        Self { waiter: Mutex::new(Some(waiter)) }
    }

    fn waiter(&self, py: Python<'_>) -> PyResult<Py<Waiter>> {
        self.waiter.lock().as_ref().map(|waiter| waiter.clone_ref(py)).ok_or_else(over)
    }
}

#[pymethods]
impl Acquire {
    fn __await__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let waiter = self.waiter.lock().take().ok_or_else(over)?;
        if event_loop::running(py).is_some() {
            return Ok(waiter.into_any());
        }
        let foreign = py.import(intern!(py, "penstock._parking"))?.getattr(intern!(py, "foreign"))?;
        let iterator = foreign.call1((waiter.clone_ref(py),))?.call_method0(intern!(py, "__await__"));
        iterator.map(Bound::unbind).inspect_err(|_| waiter.get().cancel(py))
    }

    /// For a thread: how long to sleep on `lock` (seconds; negative: until it is released), or None when it is decided.
    fn park(&self, py: Python<'_>, lock: Py<PyAny>) -> PyResult<Option<f64>> {
        Ok(self.waiter(py)?.get().park(py, lock))
    }

    /// For a thread: the permit, once it is decided.
    fn result(&self, py: Python<'_>) -> PyResult<Py<Permit>> {
        self.waiter(py)?.get().result(py)
    }

    /// Gives up: leaves the queue, or gives back what was granted. Harmless when it is over.
    fn close(&self, py: Python<'_>) {
        let waiter = self.waiter.lock().take();
        if let Some(waiter) = waiter {
            waiter.get().cancel(py);
        }
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter.get_mut().take() {
            let _ = Python::try_attach(|py| waiter.get().cancel(py));
        }
    }
}

/// A coroutine that gives a permit at once: cheaper to await than anything that ends by raising `StopIteration`.
pub fn given(py: Python<'_>, permit: Py<Permit>) -> PyResult<Py<PyAny>> {
    static GIVEN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let given = GIVEN.import(py, "penstock._parking", "given")?;
    given.call1((permit,)).map(Bound::unbind)
}
