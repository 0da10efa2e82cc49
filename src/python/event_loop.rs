//! The event loops in which calls of one limiter wait: for each, one timer and one inbox.
//!
//! A loop is known here only while calls wait in it. Its timer is set with the loop's own clock, relative to now, so
//! that a loop with virtual time works. What another thread or loop sets free goes into the inbox, and the loop is
//! woken once, however many that are.

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::clock::{self, Nanos, SECOND};

use super::convert::to_seconds;
use super::driver::Driver;
use std::sync::Arc;

/// Names a loop among those of one limiter.
pub type LoopId = u32;

/// The event loop that runs on this thread, if one does. Where nobody has imported asyncio, none does.
pub fn running(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
    static GET: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let get = GET.get_or_try_init(py, || {
        let modules = py.import("sys")?.getattr("modules")?;
        modules.get_item("asyncio")?.getattr("_get_running_loop").map(Bound::unbind)
    });
    let running = get.ok()?.bind(py).call0().ok()?;
    (!running.is_none()).then_some(running)
}

struct Timer {
    at: Nanos,
    handle: Py<PyAny>,
}

struct EventLoop {
    object: Py<PyAny>,
    tick: Py<Tick>,
    alarm: Py<Tick>,
    /// Calls that wait in it.
    parked: usize,
    timer: Option<Timer>,
    /// Futures of calls that were settled elsewhere.
    inbox: Vec<Py<PyAny>>,
    /// Whether the loop has been asked to look into the inbox.
    called: bool,
}

/// The loops of one limiter.
#[derive(Default)]
pub struct Loops {
    loops: Vec<Option<EventLoop>>,
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
        for future in &inbox {
            resolve(future.bind(py));
        }
        self.driver.pump(py);
    }

    fn __repr__(&self) -> String {
        format!("<timer of limiter {:?}>", self.driver.name)
    }
}

/// Wakes whoever awaits the future. One that was cancelled meanwhile is left alone: its waiter gives back.
pub fn resolve(future: &Bound<'_, PyAny>) {
    let _ = future.call_method1(intern!(future.py(), "set_result"), (future.py().None(),));
}

impl Loops {
    fn get(&mut self, id: LoopId) -> Option<&mut EventLoop> {
        self.loops.get_mut(id as usize)?.as_mut()
    }

    /// The place of a loop in which calls wait.
    pub fn find(&self, event_loop: &Bound<'_, PyAny>) -> Option<LoopId> {
        let same = |known: &Option<EventLoop>| known.as_ref().is_some_and(|known| known.object.is(event_loop));
        self.loops.iter().position(same).and_then(|place| LoopId::try_from(place).ok())
    }

    /// Whether calls wait in no loop at all.
    pub fn is_empty(&self) -> bool {
        self.loops.iter().all(Option::is_none)
    }

    /// One more call waits in this loop.
    pub fn park(&mut self, driver: &Arc<Driver>, event_loop: &Bound<'_, PyAny>) -> PyResult<LoopId> {
        if let Some(id) = self.find(event_loop) {
            if let Some(known) = self.get(id) {
                known.parked += 1;
            }
            return Ok(id);
        }
        let place = self.loops.iter().position(Option::is_none).unwrap_or(self.loops.len());
        let id = LoopId::try_from(place).map_err(|_| PyRuntimeError::new_err("too many event loops"))?;
        let tick = |alarm| Py::new(event_loop.py(), Tick { driver: Arc::clone(driver), id, alarm });
        let (tick, alarm) = (tick(false)?, tick(true)?);
        let object = event_loop.clone().unbind();
        let known = EventLoop { object, tick, alarm, parked: 1, timer: None, inbox: Vec::new(), called: false };
        if place == self.loops.len() {
            self.loops.push(Some(known));
        } else {
            self.loops[place] = Some(known);
        }
        Ok(id)
    }

    /// One call less waits in this loop. Gives what is left to drop, outside all locks, when it was the last.
    #[must_use]
    pub fn unpark(&mut self, id: LoopId) -> Option<Forgotten> {
        let known = self.get(id)?;
        known.parked = known.parked.saturating_sub(1);
        if known.parked > 0 || !known.inbox.is_empty() {
            return None;
        }
        self.forget(id)
    }

    /// Forgets a loop, for one, that is closed.
    #[must_use]
    pub fn forget(&mut self, id: LoopId) -> Option<Forgotten> {
        self.loops.get_mut(id as usize)?.take().map(Forgotten)
    }

    /// Takes the inbox out, and the timer if it was that which rang: late, or a little early, and then it is set again.
    fn collect(&mut self, id: LoopId, alarm: bool) -> Vec<Py<PyAny>> {
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
        let each = (0..).zip(&self.loops);
        each.filter_map(|(id, known)| Some((id, known.as_ref()?.object.clone_ref(py)))).collect()
    }

    /// Forgets everything without touching it, as a forked child must: it belongs to the parent.
    pub fn disown(&mut self) {
        std::mem::forget(std::mem::take(&mut self.loops));
    }
}

/// A loop in which nobody waits any more.
pub struct Forgotten(EventLoop);

impl Forgotten {
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
    let time: f64 = event_loop.call_method0(intern!(py, "time"))?.extract()?;
    let due = time + to_seconds(delay(event_loop, at.saturating_sub(clock::now())));
    let handle = event_loop.call_method1(intern!(py, "call_at"), (due, alarm))?.unbind();
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

/// asyncio's own loops ring on time, within a microsecond. Others count in milliseconds and round down: asked for the
/// next whole one they ring less than one early or late.
fn delay(event_loop: &Bound<'_, PyAny>, delay: Nanos) -> Nanos {
    static BASE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = event_loop.py();
    let base = BASE.get_or_try_init(py, || py.import("asyncio")?.getattr("BaseEventLoop").map(Bound::unbind));
    let exact = base.is_ok_and(|base| event_loop.is_instance(base.bind(py)).unwrap_or(false));
    if exact { delay } else { delay.next_multiple_of(SECOND / 1_000) }
}

/// Puts the future of a settled call into the inbox of its loop, if it is one, and asks the loop to look. Gives whether
/// that loop is still there.
pub fn call(driver: &Driver, py: Python<'_>, id: LoopId, future: Option<Py<PyAny>>) -> bool {
    let (event_loop, tick) = {
        let mut loops = driver.loops.lock();
        let Some(known) = loops.get(id) else { return false };
        known.inbox.extend(future);
        if known.called {
            return true;
        }
        known.called = true;
        (known.object.clone_ref(py), known.tick.clone_ref(py))
    };
    event_loop.bind(py).call_method1(intern!(py, "call_soon_threadsafe"), (tick,)).is_ok()
}

/// When the timer of a loop rings.
pub fn armed(driver: &Driver, id: LoopId) -> Option<Nanos> {
    driver.loops.lock().get(id)?.timer.as_ref().map(|timer| timer.at)
}
