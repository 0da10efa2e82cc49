//! The store of a limiter, by its URL.

use pyo3::exceptions::{PyNotImplementedError, PyValueError};
use pyo3::prelude::*;

use crate::clock;
use crate::gate::{Config, Gate, OnFailure};
use crate::store::check_support;
use crate::store::redis::address::{Address, without_password};

use super::driver::Handle;
use super::remote::Remote;

/// What `store` may be.
pub enum Place {
    Memory,
    Shared(String),
    Distant(Address),
}

impl Place {
    /// The place that a URL names.
    pub fn of(url: &str) -> PyResult<Self> {
        let place = match url.split_once("://") {
            Some(("memory", "")) => Self::Memory,
            Some(("shm", name)) => Self::Shared(name.to_owned()),
            _ => Self::Distant(Address::parse(url).map_err(|error| PyValueError::new_err(error.to_string()))?),
        };
        check_support(&without_password(url), cfg!(unix)).map_err(PyNotImplementedError::new_err)?;
        Ok(place)
    }

    /// What a limiter is called that was given this name, or none.
    pub fn name(&self, given: Option<String>) -> PyResult<Option<String>> {
        match self {
            Self::Shared(name) => Ok(given.or_else(|| Some(name.clone()))),
            Self::Memory => Ok(given),
            Self::Distant(address) => match given.or_else(|| address.name().map(str::to_owned)) {
                None => {
                    let message = "name must be given with a store in Redis, or ?name=NAME in its URL: limiters of the";
                    Err(PyValueError::new_err(format!("{message} same name share one ledger")))
                }
                name => Ok(name),
            },
        }
    }

    /// What connects a limiter with its store, if that is at a distance.
    pub fn remote(self, policy: &str) -> Option<Remote> {
        match self {
            Self::Distant(address) => Some(Remote::new(address, policy.to_owned())),
            Self::Memory | Self::Shared(_) => None,
        }
    }

    /// A gate over it.
    pub fn gate(&self, py: Python<'_>, config: Config, on_conflict: &str, on_failure: &str) -> PyResult<Gate<Handle>> {
        match self {
            Self::Memory => Ok(Gate::new(config, clock::now())),
            Self::Shared(name) => shared(py, name, config, on_conflict),
            Self::Distant(_) => distant(py, config, on_failure),
        }
    }
}

fn distant(py: Python<'_>, config: Config, on_failure: &str) -> PyResult<Gate<Handle>> {
    if config.per_key.is_some() {
        let message =
            "per_key: what each key may use on its own is not kept in Redis; leave per_key out, give each key";
        return Err(PyValueError::new_err(format!("{message} a limiter of its own, or use store='memory://'")));
    }
    let on_failure = match on_failure {
        "open" => OnFailure::Open,
        "closed" => OnFailure::Closed,
        _ => OnFailure::Share,
    };
    py.import("penstock._bells")?.call_method0("register")?;
    Ok(Gate::remote(config, on_failure, clock::now()))
}

#[cfg(unix)]
fn shared(py: Python<'_>, name: &str, config: Config, on_conflict: &str) -> PyResult<Gate<Handle>> {
    use crate::store::shared::{OnConflict, Trouble};

    let on_conflict = match on_conflict {
        "keep" => OnConflict::Keep,
        "replace" => OnConflict::Replace,
        _ => OnConflict::Error,
    };
    // Not when the first call waits: a child that is forked while a thread imports a module can never import it.
    py.import("penstock._watching")?;
    Gate::over_shared_memory(name, config, on_conflict, clock::now()).map_err(|trouble| match trouble {
        Trouble::Name(message) | Trouble::Conflict(message) => PyValueError::new_err(message),
        Trouble::Unusable(message) => super::errors::store_unavailable(py, message),
    })
}

#[cfg(not(unix))]
fn shared(_: Python<'_>, _: &str, _: Config, _: &str) -> PyResult<Gate<Handle>> {
    Err(PyNotImplementedError::new_err("this system has no shared memory")) // who made the place has said so already
}
