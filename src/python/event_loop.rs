//! The event loops in which calls of one limiter wait: for each, one timer and one inbox.
//!
//! A loop is known here only while calls wait in it. Its timer is set with the loop's own clock, relative to now, so
//! that a loop with virtual time works. What another thread or loop sets free goes into the inbox, and the loop is
//! woken once, however many that are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::clock::{self, Nanos, SECOND};

use super::cached::{Cached, intern};
use super::convert::to_seconds;
use super::driver::Driver;
use super::remote::{Remote, Watch};
use super::waiter::Waiter;

/// Names a loop among those of one limiter, and never another.
pub type LoopId = u32;

/// The event loop that runs on this thread, if one does. Where asyncio is not imported, none does; to import it here
/// would take long, and end badly in a daemon thread while the interpreter exits.
pub fn running(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
    static GET: Cached<Py<PyAny>> = Cached::new();
    let get = GET.get_or_make(|| {
        let modules = py.import(intern!(py, "sys"))?.getattr(intern!(py, "modules"))?;
        // Not "asyncio" itself, which another thread may be about to import.
        modules.get_item(intern!(py, "asyncio.events"))?.getattr("_get_running_loop").map(Bound::unbind)
    });
    let running = get.ok()?.bind(py).call0().ok()?;
    (!running.is_none()).then_some(running)
}

struct Timer {
    at: Nanos,
    handle: Py<PyAny>,
}

struct EventLoop {
    id: LoopId,
    object: Py<PyAny>,
    /// What it calls when its inbox has something.
    tick: Py<Tick>,
    /// What its timer calls.
    alarm: Py<Tick>,
    /// Calls that wait in it.
    parked: usize,
    timer: Option<Timer>,
    /// Calls that were settled elsewhere, and the futures that they sleep on.
    inbox: Vec<(Py<Waiter>, Py<PyAny>)>,
    /// Whether the loop has been asked to look into the inbox.
    called: bool,
    /// What wakes it when a store at a distance has decided.
    _watch: Option<Watch>,
}

/// The loops of one limiter. They are few, so that looking through them is quick.
#[derive(Default)]
pub struct Loops {
    loops: Vec<EventLoop>,
}

/// What a loop calls back: when its inbox has something, or as the alarm of its timer.
#[pyclass(frozen, module = "penstock._core")]
pub struct Tick {
    driver: Arc<Driver>,
    id: LoopId,
    alarm: bool,
}

#[pymethods]
impl Tick {
    fn __call__(&self, py: Python<'_>) {
        let inbox = self.driver.loops.lock().collect(self.id, self.alarm);
        for (_, future) in &inbox {
            resolve(future.bind(py));
        }
        self.driver.pump(py);
        let forgotten = self.driver.loops.lock().forget_if_idle(self.id);
        if let Some(forgotten) = forgotten {
            forgotten.stop(py);
        }
    }

    fn __repr__(&self) -> String {
        format!("<timer of limiter {:?}>", self.driver.name)
    }
}

/// A loop in which nobody waited yet.
pub struct Fresh(EventLoop);

impl Fresh {
    pub fn new(driver: &Arc<Driver>, event_loop: &Bound<'_, PyAny>) -> PyResult<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let tick = |alarm| Py::new(event_loop.py(), Tick { driver: Arc::clone(driver), id, alarm });
        let (tick, alarm) = (tick(false)?, tick(true)?);
        let object = event_loop.clone().unbind();
        let watch = |remote: &Remote| remote.watch(driver, event_loop);
        let watch = driver.remote.as_ref().map(watch).transpose()?.flatten();
        let (inbox, called) = (Vec::new(), false);
        Ok(Self(EventLoop { id, object, tick, alarm, parked: 1, timer: None, inbox, called, _watch: watch }))
    }
}

/// Wakes whoever awaits the future. One that was cancelled meanwhile is left alone: its waiter gives back.
pub fn resolve(future: &Bound<'_, PyAny>) {
    let _ = future.call_method1(intern!(future.py(), "set_result"), (future.py().None(),));
}

impl Loops {
    fn get(&mut self, id: LoopId) -> Option<&mut EventLoop> {
        self.loops.iter_mut().find(|known| known.id == id)
    }

    /// The name of a loop in which calls wait.
    pub fn find(&self, event_loop: &Bound<'_, PyAny>) -> Option<LoopId> {
        self.loops.iter().find(|known| known.object.is(event_loop)).map(|known| known.id)
    }

    /// Whether calls wait in no loop at all.
    pub fn is_empty(&self) -> bool {
        self.loops.is_empty()
    }

    /// One more call waits in this loop, if it is known.
    pub fn park(&mut self, event_loop: &Bound<'_, PyAny>) -> Option<LoopId> {
        let known = self.loops.iter_mut().find(|known| known.object.is(event_loop))?;
        known.parked += 1;
        Some(known.id)
    }

    /// A call waits in a loop that was not known.
    pub fn add(&mut self, fresh: Fresh) -> LoopId {
        let id = fresh.0.id;
        self.loops.push(fresh.0);
        id
    }

    /// One call less waits in this loop. Gives what is left to drop, outside all locks, when it was the last.
    #[must_use]
    pub fn unpark(&mut self, id: LoopId) -> Option<Forgotten> {
        let known = self.get(id)?;
        known.parked = known.parked.saturating_sub(1);
        self.forget_if_idle(id)
    }

    /// Forgets a loop, for one, that is closed.
    #[must_use]
    pub fn forget(&mut self, id: LoopId) -> Option<Forgotten> {
        let place = self.loops.iter().position(|known| known.id == id)?;
        Some(Forgotten(self.loops.swap_remove(place)))
    }

    /// Forgets a loop in which nobody waits any more and that need not be told anything.
    #[must_use]
    fn forget_if_idle(&mut self, id: LoopId) -> Option<Forgotten> {
        let known = self.get(id)?;
        if known.parked > 0 || !known.inbox.is_empty() { None } else { self.forget(id) }
    }

    /// Takes the inbox out, and the timer if it was that which rang: late, or a little early, and then it is set again.
    fn collect(&mut self, id: LoopId, alarm: bool) -> Vec<(Py<Waiter>, Py<PyAny>)> {
        let Some(known) = self.get(id) else { return Vec::new() };
        if alarm {
            known.timer = None;
        } else {
            known.called = false;
        }
        std::mem::take(&mut known.inbox)
    }

    /// The known loops.
    pub fn all(&self, py: Python<'_>) -> Vec<(LoopId, Py<PyAny>)> {
        self.loops.iter().map(|known| (known.id, known.object.clone_ref(py))).collect()
    }

    /// Forgets everything without touching it, as a forked child must: it belongs to the parent.
    pub fn disown(&mut self) {
        std::mem::forget(std::mem::take(&mut self.loops));
    }
}

/// A loop in which nobody waits any more.
pub struct Forgotten(EventLoop);

impl Forgotten {
    /// Those whom it was to be told of.
    pub fn told(&self) -> impl Iterator<Item = &Py<Waiter>> {
        self.0.inbox.iter().map(|(waiter, _)| waiter)
    }

    /// Stops its timer.
    pub fn stop(self, py: Python<'_>) {
        if let Some(timer) = self.0.timer {
            cancel(py, &timer.handle);
        }
    }
}

fn cancel(py: Python<'_>, handle: &Py<PyAny>) {
    let _ = handle.bind(py).call_method0(intern!(py, "cancel"));
}

/// Sets the timer of a loop, from its own thread, unless it rings by then anyway.
pub fn arm(driver: &Driver, event_loop: &Bound<'_, PyAny>, id: LoopId, at: Nanos) -> PyResult<()> {
    let py = event_loop.py();
    let (alarm, old) = {
        let mut loops = driver.loops.lock();
        let Some(known) = loops.get(id) else { return Ok(()) };
        if known.timer.as_ref().is_some_and(|timer| timer.at <= at) {
            return Ok(());
        }
        (known.alarm.clone_ref(py), known.timer.take())
    };
    if let Some(old) = old {
        cancel(py, &old.handle);
    }
    let delay = delay(event_loop, at.saturating_sub(clock::now()))?;
    let time: f64 = event_loop.call_method0(intern!(py, "time"))?.extract()?;
    let handle = event_loop.call_method1(intern!(py, "call_at"), (time + to_seconds(delay), alarm))?.unbind();
    let unused = {
        let mut loops = driver.loops.lock();
        match loops.get(id) {
            Some(known) => known.timer.replace(Timer { at, handle }).map(|timer| timer.handle),
            None => Some(handle),
        }
    };
    if let Some(unused) = unused {
        cancel(py, &unused);
    }
    Ok(())
}

/// asyncio's own loops ring what is due within their clock's resolution, a nanosecond. Others count in milliseconds and
/// round down: asked for the next whole one they ring less than one early or late. Only asyncio's own know virtual time.
fn delay(event_loop: &Bound<'_, PyAny>, delay: Nanos) -> PyResult<Nanos> {
    static BASE: Cached<Py<PyAny>> = Cached::new();
    let py = event_loop.py();
    let base = BASE.get_or_make(|| py.import("asyncio")?.getattr("BaseEventLoop").map(Bound::unbind))?;
    if event_loop.is_instance(base.bind(py))? {
        return Ok(delay.saturating_add(2));
    }
    if clock::frozen() {
        let message = "virtual_time() drives the event loops of asyncio itself, not";
        return Err(PyRuntimeError::new_err(format!("{message} {}", event_loop.get_type().fully_qualified_name()?)));
    }
    Ok(delay.next_multiple_of(SECOND / 1_000))
}

/// Puts a settled call into the inbox of its loop, if there is one, and asks the loop to look. Gives whether that loop
/// is still there.
pub fn call(driver: &Driver, py: Python<'_>, id: LoopId, settled: Option<(Py<Waiter>, Py<PyAny>)>) -> bool {
    let (event_loop, tick) = {
        let mut loops = driver.loops.lock();
        let Some(known) = loops.get(id) else { return false };
        known.inbox.extend(settled);
        let tick = (!std::mem::replace(&mut known.called, true)).then(|| known.tick.clone_ref(py));
        (known.object.clone_ref(py), tick)
    };
    let event_loop = event_loop.bind(py);
    match tick {
        Some(tick) => event_loop.call_method1(intern!(py, "call_soon_threadsafe"), (tick,)).is_ok(),
        // It was asked already, and may have been closed before it looked.
        None => !is_closed(event_loop),
    }
}

/// Asks the loop that runs here to look, once what is ready now has run: what arrives together travels together.
pub fn soon(driver: &Driver, event_loop: &Bound<'_, PyAny>, id: LoopId) -> PyResult<()> {
    let py = event_loop.py();
    let tick = {
        let mut loops = driver.loops.lock();
        let Some(known) = loops.get(id) else { return Ok(()) };
        (!std::mem::replace(&mut known.called, true)).then(|| known.tick.clone_ref(py))
    };
    if let Some(tick) = tick {
        event_loop.call_method1(intern!(py, "call_soon"), (tick,))?;
    }
    Ok(())
}

/// Whether a loop can never run again.
pub fn is_closed(event_loop: &Bound<'_, PyAny>) -> bool {
    let closed = event_loop.call_method0(intern!(event_loop.py(), "is_closed"));
    closed.and_then(|closed| closed.extract()).unwrap_or(false)
}

/// When the timer of a loop rings.
pub fn armed(driver: &Driver, id: LoopId) -> Option<Nanos> {
    driver.loops.lock().get(id)?.timer.as_ref().map(|timer| timer.at)
}

/// Makes the classes that are not exported.
pub fn make_classes(py: Python<'_>) {
    py.get_type::<Tick>();
    py.get_type::<super::remote::Heard>();
}
