//! Requests that were given up, remembered for layers above that send them again.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroUsize;
use std::sync::OnceLock;

use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::clock;
use crate::retry;

use super::convert::from_seconds;

/// More requests than this are not remembered at once: those whose time ends first go.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// Keyed by chance, once per process, so that nobody can make requests that share a hash.
static HASHER: OnceLock<RandomState> = OnceLock::new();

/// What stands for a request in a `Memory`: the same for the same parts, in this process.
#[pyfunction]
pub fn hash_request(method: &str, url: &str, secret: &str, body: &[u8]) -> u64 {
    HASHER.get_or_init(RandomState::new).hash_one((method, url, secret, body))
}

/// Requests that were given up, each with what it ended with, for a time.
#[pyclass(frozen, module = "penstock._core")]
pub struct Memory(Mutex<retry::Memory<Py<PyAny>>>);

#[pymethods]
impl Memory {
    #[new]
    fn new() -> Self {
        Self(Mutex::new(retry::Memory::new(CAPACITY)))
    }

    /// Remembers what a request ended with, for so many seconds.
    fn remember(&self, request: u64, seconds: f64, outcome: Py<PyAny>) {
        let now = clock::now();
        let until = now.saturating_add(from_seconds(seconds));
        // Dropping what was forgotten may run anything, so no lock is held meanwhile.
        let forgotten = self.0.lock().remember(request, until, outcome, now);
        drop(forgotten);
    }

    /// What is remembered of a request, or None.
    fn recall(&self, py: Python<'_>, request: u64) -> Option<Py<PyAny>> {
        self.0.lock().recall(request, clock::now()).map(|(_, outcome)| outcome.clone_ref(py))
    }

    /// Forgets a request.
    fn forget(&self, request: u64) {
        let forgotten = self.0.lock().forget(request);
        drop(forgotten);
    }

    fn __len__(&self) -> usize {
        self.0.lock().len()
    }

    fn __repr__(&self) -> String {
        format!("<Memory of {} requests>", self.0.lock().len())
    }
}
