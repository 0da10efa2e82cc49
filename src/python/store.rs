//! The store of a limiter, by its URL.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::clock;
use crate::gate::{Config, Gate};

use super::driver::Handle;

/// What `store` may be.
pub enum Place {
    Memory,
    Shared(String),
}

impl Place {
    /// The place that a URL names.
    pub fn of(url: &str) -> PyResult<Self> {
        match url.split_once("://") {
            Some(("memory", "")) => Ok(Self::Memory),
            Some(("shm", name)) => Ok(Self::Shared(name.to_owned())),
            _ => Err(PyValueError::new_err(format!("store must be 'memory://' or 'shm://NAME', not {url:?}"))),
        }
    }

    /// What a limiter is called that was given no name.
    pub fn name(&self) -> Option<String> {
        match self {
            Self::Memory => None,
            Self::Shared(name) => Some(name.clone()),
        }
    }

    /// A gate over it.
    pub fn gate(&self, py: Python<'_>, config: Config, on_conflict: &str) -> PyResult<Gate<Handle>> {
        match self {
            Self::Memory => Ok(Gate::new(config, clock::now())),
            Self::Shared(name) => shared(py, name, config, on_conflict),
        }
    }
}

#[cfg(unix)]
fn shared(py: Python<'_>, name: &str, config: Config, on_conflict: &str) -> PyResult<Gate<Handle>> {
    use crate::store::shared::{OnConflict, Trouble};

    let on_conflict = match on_conflict {
        "keep" => OnConflict::Keep,
        "replace" => OnConflict::Replace,
        _ => OnConflict::Error,
    };
    Gate::over_shared_memory(name, config, on_conflict, clock::now()).map_err(|trouble| match trouble {
        Trouble::Name(message) | Trouble::Conflict(message) => PyValueError::new_err(message),
        Trouble::Unusable(message) => super::errors::store_unavailable(py, message),
    })
}

#[cfg(not(unix))]
fn shared(_: Python<'_>, _: &str, _: Config, _: &str) -> PyResult<Gate<Handle>> {
    let message = "store='shm://NAME' is not supported on this system: it needs Linux, macOS or another Unix";
    Err(pyo3::exceptions::PyNotImplementedError::new_err(message))
}
