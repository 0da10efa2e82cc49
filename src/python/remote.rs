//! Limiters whose store is at a distance: between their gates, the thread that asks, and whoever sleeps meanwhile.
//!
//! The thread of Rust never touches the interpreter: it rings a bell. An event loop hears its own, as a file descriptor
//! among those that it watches; threads, and loops that can watch none, have one thread of Python that listens for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyWeakrefReference;

use crate::clock;
use crate::store::redis::address::Address;
use crate::store::redis::bell::Bell;
use crate::store::redis::link::{Event, Link};
use crate::store::redis::member::{self, Setup};
use crate::store::redis::thread;

use super::cached::intern;
use super::driver::{Driver, Entry};
use super::permit::Permit;
use super::request::Request;
use super::waiter::Acquire;

/// How long the interpreter's exit waits for the last words to all stores.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The store of one limiter.
pub struct Remote {
    address: Address,
    policy: String,
    link: Mutex<Option<Arc<Link>>>,
    /// Whether the listening thread is told, too.
    threads: AtomicBool,
    /// Whether it was said that the store is away.
    said: AtomicBool,
}

/// The loops that have a bell: a loop, held weakly, and what wakes it.
static BELLS: Mutex<Vec<(Py<PyWeakrefReference>, Arc<Bell>)>> = Mutex::new(Vec::new());
/// The bell of the thread that listens for all who have none of their own.
static LISTENER: Mutex<Option<Arc<Bell>>> = Mutex::new(None);
/// Whether the interpreter is about to exit: nothing is started any more.
static ENDING: AtomicBool = AtomicBool::new(false);

impl Remote {
    /// Nothing of it is started before it is used.
    pub fn new(address: Address, policy: String) -> Self {
        Self { address, policy, link: Mutex::new(None), threads: AtomicBool::new(false), said: AtomicBool::new(false) }
    }

    /// What goes to the store and comes from it; made when it is first used.
    fn link(&self, driver: &Driver) -> Arc<Link> {
        let mut link = self.link.lock();
        if let Some(link) = &*link {
            return Arc::clone(link);
        }
        let limits = driver.gate.lock().limits();
        let setup = Setup { limiter: driver.name.clone(), limits, address: self.address.clone() };
        let why = if ENDING.load(Ordering::Relaxed) { Err("the interpreter exits".to_owned()) } else { Ok(()) };
        let started = why.and_then(|()| member::start(setup).map_err(|error| error.to_string()));
        let fresh = started.unwrap_or_else(|why| {
            let link = Arc::new(Link::default());
            link.say(Event::Away { why: why.into(), misconfigured: false });
            link
        });
        Arc::clone(link.insert(fresh))
    }

    /// Whether something was decided that nobody has taken in.
    pub fn has_news(&self) -> bool {
        self.link.lock().as_ref().is_some_and(|link| link.has_news())
    }

    /// Tells the store what its gate has to tell.
    pub fn exchange(&self, driver: &Driver) {
        let notes = driver.gate.lock().outgoing(clock::now());
        if !notes.is_empty() {
            self.link(driver).tell(notes);
        }
    }

    /// Takes in what was decided, and wakes those whom it concerns.
    pub fn collect(&self, driver: &Arc<Driver>, py: Python<'_>) {
        let link = self.link.lock().clone();
        let Some(link) = link else { return };
        loop {
            let events = link.collect();
            if events.is_empty() {
                return;
            }
            let mut settled = Vec::new();
            let mut changes = Vec::new();
            {
                let mut gate = driver.gate.lock();
                let now = clock::now();
                for event in events {
                    match &event {
                        Event::Away { why, misconfigured } => {
                            self.said.store(true, Ordering::Relaxed);
                            changes.push(Some((why.to_string(), *misconfigured)));
                        }
                        Event::Back { .. } if self.said.swap(false, Ordering::Relaxed) => changes.push(None),
                        _ => {}
                    }
                    gate.hear(now, event, &mut settled);
                }
            }
            driver.deliver(py, settled);
            for change in changes {
                self.log(driver, py, change);
            }
        }
    }

    /// Says once that the store is away, or that it is back.
    fn log(&self, driver: &Driver, py: Python<'_>, away: Option<(String, bool)>) {
        let said = py.import(intern!(py, "penstock._bells")).and_then(|bells| {
            let (name, address) = (driver.name.as_str(), self.address.to_string());
            match away {
                Some((why, misconfigured)) => bells
                    .call_method1(intern!(py, "log_away"), (name, address, why, misconfigured, self.policy.as_str())),
                None => bells.call_method1(intern!(py, "log_back"), (name, address)),
            }
        });
        if let Err(error) = said {
            error.write_unraisable(py, None);
        }
    }

    /// The bell of a loop, which rings from here on when something is decided; nothing if it can have none.
    pub fn watch(&self, driver: &Driver, event_loop: &Bound<'_, PyAny>) -> PyResult<Option<Watch>> {
        let Ok(bell) = bell_of(event_loop) else {
            // A loop that watches no file descriptors.
            return self.watch_threads(driver, event_loop.py()).map(|()| None);
        };
        let link = self.link(driver);
        link.watch(&bell);
        Ok(Some(Watch { link, bell }))
    }

    /// Sees to it that the listening thread is told from here on, until nobody waits.
    pub fn watch_threads(&self, driver: &Driver, py: Python<'_>) -> PyResult<()> {
        if ENDING.load(Ordering::Relaxed) || self.threads.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let bell = listener(py).inspect_err(|_| self.threads.store(false, Ordering::SeqCst))?;
        self.link(driver).watch(&bell);
        Ok(())
    }

    fn unwatch_threads(&self) {
        let bell = LISTENER.lock().clone();
        let link = self.link.lock().clone();
        if let (Some(bell), Some(link)) = (bell, link)
            && self.threads.swap(false, Ordering::SeqCst)
        {
            link.unwatch(&bell);
        }
    }

    /// Says goodbye to the store.
    pub fn close(&self) -> Option<Arc<Link>> {
        let link = self.link.lock().take();
        if let Some(link) = &link {
            link.close();
        }
        link
    }

    /// Forgets the thread's side without touching it: in a forked child it is a copy of the parent's.
    pub fn disown(&self) {
        std::mem::forget(self.link.lock().take());
        self.threads.store(false, Ordering::SeqCst);
    }
}

/// A loop that is woken by a link.
pub struct Watch {
    link: Arc<Link>,
    bell: Arc<Bell>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.link.unwatch(&self.bell);
    }
}

/// A permit if the store gives one now: it is asked, and a thread that must not sleep sleeps for that one trip.
pub fn try_admit(driver: &Arc<Driver>, py: Python<'_>, request: &Request) -> PyResult<Option<Py<Permit>>> {
    let admitted = match driver.admit(py, request) {
        Ok(Entry::Now(permit)) => return Ok(Some(permit)),
        Ok(Entry::Later(waiter)) => {
            let acquire = Py::new(py, Acquire::new(waiter))?;
            let park = py.import(intern!(py, "penstock._parking"))?.getattr(intern!(py, "park"))?;
            park.call1((acquire,)).and_then(|permit| Ok(permit.cast_into::<Permit>()?.unbind()))
        }
        Err(error) => Err(error),
    };
    let errors = py.import(intern!(py, "penstock.errors"))?;
    let is_no = |error: &PyErr, name| errors.getattr(name).is_ok_and(|class| error.is_instance(py, &class));
    match admitted {
        Ok(permit) => Ok(Some(permit)),
        Err(error) if ["AcquireTimeout", "QueueFull", "QuotaExhausted"].iter().any(|name| is_no(&error, *name)) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What a loop calls when its bell rings.
#[pyclass(frozen, module = "penstock._core")]
pub struct Heard {
    bell: Arc<Bell>,
}

#[pymethods]
impl Heard {
    fn __call__(&self, py: Python<'_>) {
        self.bell.hush();
        attend(py);
    }
}

/// Takes in what was decided for any limiter.
fn attend(py: Python<'_>) {
    for driver in super::driver::distant() {
        if driver.remote.as_ref().is_some_and(Remote::has_news) {
            driver.pump(py);
        }
    }
}

/// The bell of a loop that runs here. It is kept for as long as the loop is: a loop that is closed lets go of it.
fn bell_of(event_loop: &Bound<'_, PyAny>) -> PyResult<Arc<Bell>> {
    let py = event_loop.py();
    let known: Vec<_> = BELLS.lock().iter().map(|(known, bell)| (known.clone_ref(py), Arc::clone(bell))).collect();
    for (known, bell) in &known {
        if known.bind(py).upgrade().is_some_and(|known| known.is(event_loop)) {
            return Ok(Arc::clone(bell));
        }
    }
    let bell = Arc::new(Bell::new()?);
    let heard = Py::new(py, Heard { bell: Arc::clone(&bell) })?;
    event_loop.call_method1(intern!(py, "add_reader"), (bell.fd(), heard))?;
    let weak = PyWeakrefReference::new(event_loop)?.unbind();
    let mut gone = Vec::new();
    {
        let mut bells = BELLS.lock();
        let (alive, dead) = std::mem::take(&mut *bells).into_iter().partition(|(known, _)| {
            let _: &Py<PyWeakrefReference> = known;
            known.bind(py).upgrade().is_some()
        });
        *bells = alive;
        gone.extend::<Vec<_>>(dead);
        bells.push((weak, Arc::clone(&bell)));
    }
    drop(gone);
    Ok(bell)
}

/// The bell of the listening thread, which is started if there is none.
fn listener(py: Python<'_>) -> PyResult<Arc<Bell>> {
    let known = LISTENER.lock().clone();
    if let Some(bell) = known {
        return Ok(bell);
    }
    let bell = Arc::new(Bell::new()?);
    // Starting a thread runs Python: another may have been quicker.
    let bell = Arc::clone(LISTENER.lock().get_or_insert(bell));
    let started = py.import(intern!(py, "penstock._bells"))?.call_method1(intern!(py, "listen"), (bell.fd(),));
    if let Err(error) = started {
        *LISTENER.lock() = None;
        return Err(error);
    }
    Ok(bell)
}

/// For `penstock._bells`: the listening thread was woken. Gives whether it is to go on.
#[pyfunction]
pub fn heard(py: Python<'_>) -> bool {
    let bell = LISTENER.lock().clone();
    if let Some(bell) = bell {
        bell.hush();
    }
    attend(py);
    for driver in super::driver::distant() {
        if let Some(remote) = &driver.remote
            && driver.gate.lock().waiting() == 0
        {
            remote.unwatch_threads();
        }
    }
    !ENDING.load(Ordering::Relaxed)
}

/// For `penstock._bells`, at the interpreter's exit: what is held elsewhere is given back.
///
/// Nothing is started any more from here on.
#[pyfunction]
pub fn retire(py: Python<'_>) {
    ENDING.store(true, Ordering::Relaxed);
    let until = Instant::now() + LAST_WORDS;
    let mut links = Vec::new();
    for driver in super::driver::distant() {
        let Some(remote) = &driver.remote else { continue };
        remote.exchange(&driver);
        links.extend(remote.close());
    }
    py.detach(|| links.iter().for_each(|link| link.wait_closed(until)));
    let listener = LISTENER.lock().clone();
    if let Some(bell) = listener {
        bell.ring();
    }
    // Whoever still waits, or comes later, goes on without a store.
    for driver in super::driver::distant() {
        if let Some(remote) = &driver.remote {
            let mut settled = Vec::new();
            let away = Event::Away { why: "the interpreter exits".into(), misconfigured: false };
            driver.gate.lock().hear(clock::now(), away, &mut settled);
            driver.settle(py, settled);
            let _ = remote.close();
        }
    }
}

/// What a forked child does.
pub fn after_fork() {
    thread::disown();
    std::mem::forget(std::mem::take(&mut *BELLS.lock()));
    std::mem::forget(LISTENER.lock().take());
}
