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

/// What a call waits inside of: a permit, budgets. Dropped, it gives back what it had of these.
struct Inside {
    nested: Option<Nested>,
    charge: Option<Box<Charge>>,
}

/// A place in the queue: of a task or of a thread, which hold it in an `Acquire`, or of a task of trio.
#[pyclass(frozen, module = "penstock._core")]
pub struct Waiter {
    driver: Arc<Driver>,
    ticket: AtomicU64,
    /// When its time to wait is over; never, if this is the end of time.
    deadline: AtomicU64,
    inside: Mutex<Option<Box<Inside>>>,
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
            inside: Mutex::new(None),
            state: Mutex::new(State::Queued),
        }
    }

    /// Its name in the queue, and when its time to wait is over.
    pub fn queue(&self, ticket: Ticket, deadline: Nanos) {
        self.ticket.store(ticket.to_bits(), Ordering::Relaxed);
        self.deadline.store(deadline, Ordering::Relaxed);
    }

    /// The permit it waits inside of, and what it has taken from budgets.
    pub fn nest(&self, nested: Option<Nested>, charge: Option<Box<Charge>>) {
        if nested.is_some() || charge.is_some() {
            *self.inside.lock() = Some(Box::new(Inside { nested, charge }));
        }
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

    /// Gives back what it had of the permit and the budgets that it waited inside of.
    fn uncover(&self) {
        let inside = self.inside.lock().take();
        drop(inside); // not under the lock: its end may run anything
    }

    /// Ends it without a word, since its loop is gone. Gives what was decided and not taken.
    pub fn bury(&self) -> Option<Outcome> {
        let before = std::mem::replace(&mut *self.state.lock(), State::Done);
        self.uncover();
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
                let came_back = self.driver.abandon(*outcome);
                self.uncover();
                if came_back {
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
        let inside = self.inside.lock().take();
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
    /// Gives up: leaves the queue, or gives back what was granted. Harmless when it is over.
    fn close(&self, py: Python<'_>) {
        self.cancel(py);
    }

    /// For a thread: how long to sleep on `lock`, in seconds, or None when it is decided.
    ///
    /// A negative number is until it is released.
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

/// What one gets who must wait: a task awaits it, once; a thread parks on it.
///
/// Dropped before it is through, it gives up: Python up to 3.12 drops what a closed async generator awaits without a word
/// to it.
#[pyclass(frozen, module = "penstock._core")]
pub struct Acquire {
    waiter: Py<Waiter>,
    awaited: AtomicBool,
    /// Whether another awaitable looks after the waiter from here on.
    handed_on: AtomicBool,
}

impl Acquire {
    pub fn new(waiter: Py<Waiter>) -> Self {
        Self { waiter, awaited: AtomicBool::new(false), handed_on: AtomicBool::new(false) }
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
        let iterator = foreign.call1((this.waiter.clone_ref(py),))?.call_method0(intern!(py, "__await__"))?;
        this.handed_on.store(true, Ordering::Relaxed);
        Ok(iterator)
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Waiter::step(self.waiter.bind(py))?.into_next()
    }

    /// One step of the task that awaits it; the value says nothing.
    fn send(&self, value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.__next__(value.py())
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
    fn park(&self, py: Python<'_>, lock: Py<PyAny>) -> Option<f64> {
        self.waiter.get().park(py, lock)
    }

    /// For a thread: the permit, once it is decided. Raises what `Waiter.result` does.
    fn result(&self, py: Python<'_>) -> PyResult<Py<Permit>> {
        self.waiter.get().result(py)
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        if !*self.handed_on.get_mut() {
            at_end(|py| self.waiter.get().cancel(py));
        }
    }
}

/// A coroutine that gives a permit at once: cheaper to await than anything that ends by raising `StopIteration`.
pub fn given(py: Python<'_>, permit: Py<Permit>) -> PyResult<Py<PyAny>> {
    static GIVEN: Cached<Py<PyAny>> = Cached::new();
    let given = GIVEN.get_or_make(|| Ok(py.import("penstock._parking")?.getattr("given")?.unbind()))?;
    given.bind(py).call1((permit,)).map(Bound::unbind)
}
