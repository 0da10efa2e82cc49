//! Drives one limiter's gate: takes what it sets free and wakes it, sets timers, sweeps what is dead.
//!
//! Locks: the gate's, the loops' and each waiter's. None is held while Python runs, since any call of Python may run
//! anything, a permit's release included; nor while another is taken, but for a waiter's under the gate's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::clock::{self, Nanos};
use crate::gate::{Admission, Gate, Grant, Outcome, Refusal, Request as Asked};
use crate::queue::Ticket;

use super::budget::{Charge, refused_within};
use super::cached::intern;
use super::event_loop::{self, LoopId, Loops};
use super::nesting::Nesting;
use super::permit::{Nested, Permit};
use super::remote::Remote;
use super::request::Request;
use super::waiter::{Delivery, Parked, Waiter};
use super::watch;

/// How the gate names a waiter: nothing until the waiter is made, under the same lock.
pub type Handle = Option<Py<Waiter>>;

/// One limiter's gate, and what wakes those who wait at it.
pub struct Driver {
    /// The limiter's name, for messages.
    pub name: String,
    pub gate: Mutex<Gate<Handle>>,
    pub loops: Mutex<Loops>,
    pub nesting: Nesting,
    /// Permits that were released and keep their slot for calls inside.
    lingering: AtomicU64,
    /// The store, if it is at a distance.
    pub remote: Option<Remote>,
}

/// What a call got.
pub enum Entry {
    Now(Py<Permit>),
    Later(Py<Waiter>),
}

static DRIVERS: Mutex<Vec<Weak<Driver>>> = Mutex::new(Vec::new());

impl Driver {
    /// A driver of that gate, and of its store, if that is at a distance.
    pub fn new(name: String, gate: Gate<Handle>, remote: Option<Remote>) -> Arc<Self> {
        let gate = Mutex::new(gate);
        let driver = Arc::new(Self {
            name,
            gate,
            loops: Mutex::default(),
            nesting: Nesting::default(),
            lingering: AtomicU64::new(0),
            remote,
        });
        let mut drivers = DRIVERS.lock();
        drivers.retain(|driver| driver.strong_count() > 0);
        drivers.push(Arc::downgrade(&driver));
        driver
    }

    /// Asks the gate. Who must wait gets a waiter, which is not parked yet.
    #[inline]
    pub fn admit(self: &Arc<Self>, py: Python<'_>, request: &Request) -> PyResult<Entry> {
        self.admit_as(py, request, Permit::new)
    }

    /// As [`Driver::admit`], for one whose permit, if it is there at once, is made by `make`.
    #[inline]
    pub fn admit_as(
        self: &Arc<Self>,
        py: Python<'_>,
        request: &Request,
        make: impl FnOnce(Python<'_>, &Arc<Self>, Grant, Option<Nested>, Option<Box<Charge>>) -> PyResult<Py<Permit>>,
    ) -> PyResult<Entry> {
        if let Some(remote) = &self.remote {
            remote.collect(self, py);
        }
        let mut nested = self.nesting.enclosing(py).map(Nested::cover);
        let covered = nested.as_ref().map(Nested::covered).unwrap_or_default();
        let cost = request.cost.minus(covered);
        let mut asked = request.gate(cost, nested.is_some());
        let outside = nested.as_ref().map(Nested::outside);
        let mut charge = Charge::new(py, &request.cost, &cost, outside, &mut asked.timeout)?;
        let at_once = self.gate.lock().admit_at_once(clock::now(), &asked);
        match at_once {
            Some(Admission::Granted(grant)) => Ok(Entry::Now(make(py, self, grant, nested, charge)?)),
            Some(Admission::Refused(refusal)) => {
                drop(nested);
                Err(refused_within(py, &self.name, &refusal, charge.as_deref()))
            }
            _ => {
                // All of it is charged when the call leaves: what the permit outside covered, and what goes beyond.
                asked.cost = cost.plus(covered);
                if let Some(nested) = &mut nested {
                    nested.defer();
                    if let Some(charge) = &mut charge {
                        charge.set(&asked.cost, &asked.cost);
                    }
                }
                self.wait(py, &asked, nested, charge)
            }
        }
    }

    /// Asks the gate for one who cannot leave at once. The waiter is made first: making it may run anything.
    #[cold]
    fn wait(
        self: &Arc<Self>,
        py: Python<'_>,
        asked: &Asked<'_>,
        nested: Option<Nested>,
        charge: Option<Box<Charge>>,
    ) -> PyResult<Entry> {
        if self.remote.is_some() && clock::frozen() {
            let message = "virtual_time() does not drive the clock of a store in Redis";
            return Err(PyRuntimeError::new_err(format!("{message} (limiter {:?})", self.name)));
        }
        let waiter = Py::new(py, Waiter::new(self))?;
        let deferred = nested.is_some();
        let mut settled = Vec::new();
        let admission = {
            let mut gate = self.gate.lock();
            let now = clock::now();
            let admission = gate.admit(now, asked, &mut settled);
            if let Admission::Queued(ticket) = admission {
                // Who leaves now or never is told so by the store.
                let timeout = asked.timeout.filter(|&timeout| timeout > 0);
                waiter.get().queue(ticket, timeout.map_or(Nanos::MAX, |timeout| now.saturating_add(timeout)));
                if let Some(handle) = gate.payload(ticket) {
                    *handle = Some(waiter.clone_ref(py));
                }
            }
            admission
        };
        let entry = match admission {
            Admission::Granted(grant) => Permit::new(py, self, grant, nested, charge).map(Entry::Now),
            Admission::Queued(_) => {
                waiter.get().nest(nested, charge);
                let shared = self.gate.lock().is_shared();
                if shared && let Err(error) = watch::ensure(py) {
                    waiter.get().cancel(py);
                    return Err(error);
                }
                Ok(Entry::Later(waiter))
            }
            Admission::Refused(refusal) => Err(refused_within(py, &self.name, &refusal, charge.as_deref())),
        };
        // What a permit outside was given back may be what another waits for.
        if deferred || !settled.is_empty() {
            self.settle(py, settled);
        }
        entry
    }

    /// Tells a store at a distance what there is to tell.
    #[inline]
    pub fn exchange(&self) {
        if let Some(remote) = &self.remote {
            remote.exchange(self);
        }
    }

    /// Whether a store at a distance has decided something that was not taken in.
    pub fn has_news(&self) -> bool {
        self.remote.as_ref().is_some_and(Remote::has_news)
    }

    /// A permit, if there is one now.
    pub fn try_admit(self: &Arc<Self>, py: Python<'_>, request: &Request) -> PyResult<Option<Py<Permit>>> {
        let nested = self.nesting.enclosing(py).map(Nested::cover);
        let cost = nested.as_ref().map_or(request.cost, |nested| request.cost.minus(nested.covered()));
        let mut asked = request.gate(cost, nested.is_some());
        let outside = nested.as_ref().map(Nested::outside);
        let charge = Charge::new(py, &request.cost, &cost, outside, &mut asked.timeout)?;
        let at_once = self.gate.lock().admit_at_once(clock::now(), &asked);
        let admission = at_once.unwrap_or_else(|| {
            let mut settled = Vec::new();
            let admission = self.gate.lock().admit(clock::now(), &asked, &mut settled);
            self.settle(py, settled);
            admission
        });
        match admission {
            Admission::Granted(grant) => Permit::new(py, self, grant, nested, charge).map(Some),
            Admission::Refused(refusal @ Refusal::Oversize(_)) => {
                Err(refused_within(py, &self.name, &refusal, charge.as_deref()))
            }
            // With no time to wait nobody is queued.
            Admission::Refused(_) | Admission::Queued(_) => Ok(None),
        }
    }

    /// Wakes those whom something else than a pump has set free, and whoever follows.
    pub fn settle(self: &Arc<Self>, py: Python<'_>, settled: Vec<(Handle, Outcome)>) {
        if !settled.is_empty() {
            self.deliver(py, settled);
        }
        self.pump(py);
    }

    /// Admits all who may leave by now, wakes them, and sees to it that someone wakes for the next.
    pub fn pump(self: &Arc<Self>, py: Python<'_>) {
        if let Some(remote) = &self.remote {
            remote.collect(self, py);
            self.pump_here(py);
            return self.exchange();
        }
        self.pump_here(py);
    }

    fn pump_here(self: &Arc<Self>, py: Python<'_>) {
        loop {
            let mut settled = Vec::new();
            {
                let mut gate = self.gate.lock();
                if gate.waiting() == 0 {
                    return;
                }
                gate.pump(clock::now(), &mut settled);
            }
            if !self.deliver(py, settled) {
                break;
            }
        }
        self.arm(py);
    }

    /// Gives each outcome to its waiter and wakes it. Gives whether something came back: a grant that nobody takes.
    pub fn deliver(self: &Arc<Self>, py: Python<'_>, settled: Vec<(Handle, Outcome)>) -> bool {
        let mut came_back = false;
        let mut here = None;
        for (handle, outcome) in settled {
            let Some(waiter) = handle else {
                came_back |= self.abandon(outcome);
                continue;
            };
            match waiter.get().deliver(outcome) {
                Delivery::Unparked => {}
                Delivery::Refused(outcome) => came_back |= self.abandon(outcome),
                Delivery::Thread(lock) => {
                    let _ = lock.bind(py).call_method0(intern!(py, "release"));
                }
                Delivery::Loop(id, future) => {
                    let here = *here.get_or_insert_with(|| self.running(py).map(|(id, _)| id));
                    if here == Some(id) {
                        event_loop::resolve(future.bind(py));
                    } else if !event_loop::call(self, py, id, Some((waiter.clone_ref(py), future))) {
                        if let Some(outcome) = waiter.get().bury() {
                            self.abandon(outcome);
                        }
                        self.sweep(py, id);
                        came_back = true;
                    }
                    self.unpark(py, id);
                }
            }
        }
        came_back
    }

    /// Takes a grant back that nobody takes.
    #[allow(clippy::needless_pass_by_value)] // what was decided ends here
    pub fn abandon(&self, outcome: Outcome) -> bool {
        if let Ok(grant) = outcome {
            self.gate.lock().abandon(clock::now(), grant);
            return true;
        }
        false
    }

    /// A permit was released that keeps its slot for calls inside: its own is under way no more.
    pub fn linger(&self) {
        self.lingering.fetch_add(1, Ordering::Relaxed);
    }

    /// The last call inside it is over. One of before a fork does not count.
    pub fn linger_no_more(&self, grant: &Grant) {
        if self.gate.lock().counts_grant(grant) {
            self.lingering.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Of so many permits that hold something, how many calls are under way.
    pub fn under_way(&self, in_flight: u64) -> u64 {
        in_flight.saturating_sub(self.lingering.load(Ordering::Relaxed))
    }

    /// Gives the slot of a grant back, and wakes whom that sets free.
    #[inline]
    pub fn release(self: &Arc<Self>, py: Python<'_>, grant: &Grant) {
        if !self.release_unwatched(grant) {
            self.gate.lock().release(clock::now(), grant);
            self.pump(py);
        }
    }

    /// Gives the slot of a grant back if nobody waits. Tells whether it did.
    #[inline]
    pub fn release_unwatched(&self, grant: &Grant) -> bool {
        let mut gate = self.gate.lock();
        let unwatched = gate.waiting() == 0;
        if unwatched {
            gate.release_unwatched(grant);
        }
        drop(gate);
        if unwatched {
            self.exchange();
        }
        unwatched
    }

    /// The event loop that runs here and in which calls of this limiter wait.
    fn running<'py>(&self, py: Python<'py>) -> Option<(LoopId, Bound<'py, PyAny>)> {
        let running = event_loop::running(py)?;
        let id = self.loops.lock().find(&running)?;
        Some((id, running))
    }

    /// One call more waits in this loop.
    pub fn park(self: &Arc<Self>, event_loop: &Bound<'_, PyAny>) -> PyResult<LoopId> {
        let known = self.loops.lock().park(event_loop);
        if let Some(id) = known {
            return Ok(id);
        }
        // What is allocated may run anything, so no lock is held meanwhile.
        let fresh = event_loop::Fresh::new(self, event_loop)?;
        Ok(self.loops.lock().add(fresh))
    }

    /// One call less waits in that loop.
    pub fn unpark(&self, py: Python<'_>, id: LoopId) {
        let forgotten = self.loops.lock().unpark(id);
        if let Some(forgotten) = forgotten {
            forgotten.stop(py);
        }
    }

    /// Sees to it that someone wakes when the next may leave: the loop that runs here, and the loops or threads of those
    /// whom the gate names. Each waiter sees to its own timeout: its loop or thread wakes for that.
    pub fn arm(self: &Arc<Self>, py: Python<'_>) {
        let (event, sentinels) = {
            let mut gate = self.gate.lock();
            let sentinels = gate.sentinels().map(|sentinel| {
                let (due, ticket) = sentinel?;
                Some((due, gate.payload(ticket)?.as_ref()?.clone_ref(py)))
            });
            (gate.next_event(), sentinels)
        };
        let here = self.running(py);
        if let (Some(event), Some((id, running))) = (event, &here)
            && let Err(error) = event_loop::arm(self, running, *id, event)
        {
            error.write_unraisable(py, Some(running));
        }
        for (due, sentinel) in sentinels.into_iter().flatten() {
            match sentinel.get().parked(py) {
                Parked::Loop(id) if here.as_ref().is_none_or(|(here, _)| *here != id) => {
                    let armed = event_loop::armed(self, id);
                    if armed.is_none_or(|at| at > due) && !event_loop::call(self, py, id, None) {
                        self.sweep(py, id);
                        // Who is next now may wait elsewhere.
                        return self.pump(py);
                    }
                }
                Parked::Thread(lock, at) if at > due => {
                    let _ = lock.bind(py).call_method0(intern!(py, "release"));
                }
                _ => {}
            }
        }
    }

    /// Sees to it that the loop that runs here, in which a call has just parked, wakes for the next.
    pub fn arm_here(&self, _py: Python<'_>, running: &Bound<'_, PyAny>, id: LoopId) -> PyResult<()> {
        let event = self.gate.lock().next_event();
        event.map_or(Ok(()), |event| event_loop::arm(self, running, id, event))
    }

    /// A loop in which nobody waited yet is the time to give back what closed ones left.
    pub fn sweep_if_new(self: &Arc<Self>, py: Python<'_>, running: &Bound<'_, PyAny>) {
        let new = {
            let loops = self.loops.lock();
            loops.find(running).is_none() && !loops.is_empty()
        };
        if new {
            self.sweep_closed(py);
        }
    }

    /// Gives back what a closed loop left: its waiters and what was granted to them.
    fn sweep(self: &Arc<Self>, py: Python<'_>, id: LoopId) {
        let forgotten = self.loops.lock().forget(id);
        let dead = {
            let mut gate = self.gate.lock();
            let in_loop = |handle: &Handle| handle.as_ref().is_some_and(|waiter| waiter.get().is_parked_in(id));
            let tickets = gate.pick(in_loop);
            let now = clock::now();
            tickets.into_iter().filter_map(|ticket| gate.cancel(now, ticket).flatten()).collect::<Vec<_>>()
        };
        // Futures of dead loops, and whatever hangs on them, go outside of all locks.
        for waiter in &dead {
            waiter.get().bury();
        }
        drop(dead);
        if let Some(forgotten) = forgotten {
            for outcome in forgotten.told().filter_map(|waiter| waiter.get().bury()) {
                self.abandon(outcome);
            }
            forgotten.stop(py);
        }
    }

    /// Gives back what closed loops left. Asked before numbers are shown and when a new loop comes.
    pub fn sweep_closed(self: &Arc<Self>, py: Python<'_>) {
        let known = self.loops.lock().all(py);
        let dead: Vec<_> = known.iter().filter(|(_, known)| event_loop::is_closed(known.bind(py))).collect();
        for (id, _) in &dead {
            self.sweep(py, *id);
        }
        if !dead.is_empty() {
            self.pump(py);
        }
    }

    /// When a waiter should be looked after; nothing if only an event can set it free.
    pub fn expected(&self, ticket: Ticket) -> Option<Nanos> {
        self.gate.lock().expected(clock::now(), ticket)
    }
}

/// The drivers of limiters that other processes share, and at which calls wait.
pub fn shared() -> Vec<Arc<Driver>> {
    let drivers: Vec<_> = DRIVERS.lock().iter().filter_map(Weak::upgrade).collect();
    let awaited = |driver: &Arc<Driver>| {
        let gate = driver.gate.lock();
        gate.is_shared() && gate.waiting() > 0
    };
    drivers.into_iter().filter(awaited).collect()
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(remote) = &self.remote {
            remote.exchange(self);
            remote.close();
        }
    }
}

/// The drivers of limiters whose store is at a distance.
pub fn distant() -> Vec<Arc<Driver>> {
    let drivers = DRIVERS.lock().iter().filter_map(Weak::upgrade).collect::<Vec<_>>();
    drivers.into_iter().filter(|driver| driver.remote.is_some()).collect()
}

/// What a forked child does for every limiter.
pub fn after_fork(_py: Python<'_>) {
    #[cfg(unix)]
    crate::store::shared::after_fork();
    let drivers: Vec<_> = DRIVERS.lock().iter().filter_map(Weak::upgrade).collect();
    for driver in drivers {
        // Waiters, futures and loops are copies of the parent's. Dropping them would run finalizers of tasks that
        // live there; they are left where they are.
        std::mem::forget(driver.gate.lock().disown());
        driver.loops.lock().disown();
        driver.nesting.disown();
        driver.lingering.store(0, Ordering::Relaxed);
        if let Some(remote) = &driver.remote {
            remote.disown();
        }
    }
}
