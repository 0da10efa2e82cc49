//! A permit for a block: `with limiter.permit(...)`, `async with limiter.permit(...)`.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::cached::Cached;
use super::driver::{Driver, Entry};
use super::permit::Permit;
use super::request::Request;
use super::waiter::{Acquire, given};

/// Permits that blocks of one context manager hold: usually one, several if it is used by several tasks at once.
#[derive(Default)]
pub struct Blocks {
    held: Mutex<HashMap<usize, Py<Permit>>>,
}

impl Blocks {
    /// A block begins.
    pub fn enter(&self, permit: &Bound<'_, Permit>) -> PyResult<()> {
        Permit::begin(permit)?;
        self.held.lock().insert(permit.as_ptr() as usize, permit.clone().unbind());
        Ok(())
    }

    /// A block that was not entered after all.
    pub fn undo(&self, permit: &Bound<'_, Permit>) {
        let held = self.held.lock().remove(&(permit.as_ptr() as usize));
        permit.get().give_back(permit.py());
        drop(held);
    }

    /// A block ends: that of this task tree if it can be told; else one whose permit was given back early; else any.
    pub fn leave(&self, py: Python<'_>, driver: &Driver) {
        let mut inside = driver.nesting.enclosing(py);
        let permit = loop {
            let Some(permit) = inside else {
                let mut held = self.held.lock();
                let early = held.iter().find(|(_, permit)| permit.get().is_over());
                let place = early.or_else(|| held.iter().next()).map(|(&place, _)| place);
                break place.and_then(|place| held.remove(&place));
            };
            if let Some(own) = self.held.lock().remove(&(permit.as_ptr() as usize)) {
                break Some(own);
            }
            inside = permit.get().outside(py);
        };
        if let Some(permit) = permit {
            permit.get().give_back(py);
        }
    }
}

/// A permit for a block, not yet asked for: what `Limiter.permit` gives.
///
/// It can be entered again and again, and by several tasks at once: each block has a permit of its own.
#[pyclass(frozen, module = "penstock._core")]
pub struct Scope {
    driver: Arc<Driver>,
    request: Request,
    blocks: Arc<Blocks>,
}

impl Scope {
    pub fn new(driver: &Arc<Driver>, request: Request) -> Self {
        Self { driver: Arc::clone(driver), request, blocks: Arc::default() }
    }
}

/// Begins a block of a thread and notes its permit in `entered`, or gives what the thread must sleep on first.
pub fn enter(
    driver: &Arc<Driver>,
    request: &Request,
    blocks: &Blocks,
    entered: &Bound<'_, PyList>,
) -> PyResult<Py<PyAny>> {
    let py = entered.py();
    match driver.admit(py, request)? {
        Entry::Now(permit) => {
            entered.append(permit.bind(py))?;
            blocks.enter(permit.bind(py))?;
            Ok(permit.into_any())
        }
        Entry::Later(waiter) => Ok(Py::new(py, Acquire::new(waiter))?.into_any()),
    }
}

/// Begins a block of a task: gives what is to be awaited.
pub fn aenter(py: Python<'_>, driver: &Arc<Driver>, request: &Request, blocks: &Arc<Blocks>) -> PyResult<Py<PyAny>> {
    match driver.admit(py, request)? {
        Entry::Now(permit) => {
            blocks.enter(permit.bind(py))?;
            given(py, permit)
        }
        Entry::Later(waiter) => {
            let entering = PyClassInitializer::from(Acquire::new(waiter));
            let entering = entering.add_subclass(Entering { blocks: Arc::clone(blocks) });
            Ok(Py::new(py, entering)?.into_any())
        }
    }
}

#[pymethods]
impl Scope {
    /// For `penstock._parking.enter`: a permit whose block has begun, or what a thread must sleep on first.
    ///
    /// The permit is noted in `entered`, too, for a thread that is interrupted before it knows of it.
    fn enter_now(&self, entered: &Bound<'_, PyList>) -> PyResult<Py<PyAny>> {
        enter(&self.driver, &self.request, &self.blocks, entered)
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
        aenter(py, &self.driver, &self.request, &self.blocks)
    }

    #[pyo3(signature = (*_error))]
    fn __aexit__(&self, py: Python<'_>, _error: &Bound<'_, PyTuple>) -> PyResult<Py<Ready>> {
        self.blocks.leave(py, &self.driver);
        Ready::shared(py)
    }

    /// For decorators: a permit that is open, or what a task awaits and a thread sleeps on to get one.
    fn ask(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self.driver.admit_as(py, &self.request, Permit::opened)? {
            Entry::Now(permit) => Ok(permit.into_any()),
            Entry::Later(waiter) => Ok(Py::new(py, Acquire::new(waiter))?.into_any()),
        }
    }

    fn __repr__(&self) -> String {
        format!("<permit of limiter {:?}: {}>", self.driver.name, self.request.cost)
    }
}

/// Something that is over already: awaiting it gives None at once.
#[pyclass(frozen, module = "penstock._core")]
pub struct Ready;

impl Ready {
    /// The one there is.
    pub fn shared(py: Python<'_>) -> PyResult<Py<Self>> {
        static READY: Cached<Py<Ready>> = Cached::new();
        READY.get_or_make(|| Py::new(py, Self)).map(|ready| ready.clone_ref(py))
    }
}

#[pymethods]
impl Ready {
    fn __await__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    #[allow(clippy::unused_self)]
    fn __next__(&self) -> Option<Py<PyAny>> {
        None
    }
}

/// A block of a task that waits for its permit.
#[pyclass(frozen, extends = Acquire, module = "penstock._core")]
pub struct Entering {
    /// The context manager whose block it is.
    blocks: Arc<Blocks>,
}

impl Entering {
    /// Begins the block.
    pub fn begin(&self, permit: &Bound<'_, Permit>) -> PyResult<()> {
        self.blocks.enter(permit)
    }
}

/// Makes the classes that are not exported.
pub fn make_classes(py: Python<'_>) {
    py.get_type::<Entering>();
    py.get_type::<Ready>();
}
