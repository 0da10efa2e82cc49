//! What wakes calls that wait here when another process has given something back.
//!
//! A thread outside of the interpreter hears it and writes into a pipe; a thread of Python reads that and comes here. So
//! no thread of ours ever enters the interpreter, which before 3.14 must not be done while it exits.

use pyo3::prelude::*;

use super::driver;

/// Sees to it that a thread of Python listens, since calls wait whom other processes may set free.
#[cfg(unix)]
#[cold]
pub fn ensure(py: Python<'_>) -> PyResult<()> {
    use std::os::fd::AsRawFd;
    use std::sync::atomic::{AtomicU32, Ordering};

    use crate::store::shared::{forks, watch};

    /// One more than the generation of forks in which a thread was begun.
    static BEGUN: AtomicU32 = AtomicU32::new(0);
    let generation = forks().wrapping_add(1);
    if BEGUN.swap(generation, Ordering::Relaxed) == generation {
        return Ok(());
    }
    let begin = || {
        let reader = watch::reader()?.as_raw_fd();
        py.import("penstock._watching")?.call_method1("begin", (reader,))
    };
    begin().map(drop).inspect_err(|_| BEGUN.store(0, Ordering::Relaxed))
}

#[cfg(not(unix))]
pub fn ensure(_: Python<'_>) -> PyResult<()> {
    Ok(())
}

/// Lets the calls leave that may, of limiters that others share.
pub fn look(py: Python<'_>) {
    #[cfg(unix)]
    crate::store::shared::watch::heard();
    for driver in driver::shared() {
        driver.pump(py);
    }
}
