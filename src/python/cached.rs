//! What is made once and kept: names, classes, functions of Python.
//!
//! Not pyo3's `intern!` and `PyOnceLock`: to make a value these let go of the interpreter while others wait for it. A
//! daemon thread that does so while the interpreter exits never comes back, and the main thread would wait for it for
//! ever. Here nobody waits: if two threads make the value at once, one of the two is kept.

use std::sync::OnceLock;

use pyo3::prelude::*;
use pyo3::types::PyString;

/// A value that is made when it is first asked for.
pub struct Cached<T>(OnceLock<T>);

impl<T> Cached<T> {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The value. An error of `make` is not kept.
    #[inline]
    pub fn get_or_make(&self, make: impl FnOnce() -> PyResult<T>) -> PyResult<&T> {
        match self.0.get() {
            Some(kept) => Ok(kept),
            None => Ok(self.keep(make()?)),
        }
    }

    #[cold]
    fn keep(&self, fresh: T) -> &T {
        self.0.get_or_init(|| fresh)
    }
}

/// A name of Python's, made when it is first used.
pub struct Name {
    text: &'static str,
    string: OnceLock<Py<PyString>>,
}

impl Name {
    pub const fn new(text: &'static str) -> Self {
        Self { text, string: OnceLock::new() }
    }

    /// The name as a string of Python.
    #[inline]
    pub fn get<'py>(&self, py: Python<'py>) -> &Bound<'py, PyString> {
        let string = self.string.get();
        string.unwrap_or_else(|| self.make(py)).bind(py)
    }

    #[cold]
    fn make(&self, py: Python<'_>) -> &Py<PyString> {
        let made = PyString::intern(py, self.text).unbind();
        self.string.get_or_init(|| made)
    }
}

/// A name of Python's, made once for each place that uses it.
macro_rules! intern {
    ($py:expr, $text:literal) => {{
        static NAME: $crate::python::cached::Name = $crate::python::cached::Name::new($text);
        NAME.get($py)
    }};
}
pub(crate) use intern;
