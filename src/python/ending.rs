//! The end of objects that give something back.

use pyo3::prelude::*;

/// Does what the end of an object asks for, unless the interpreter has ended already.
///
/// Objects end at any time, also while an exception is on its way: of a frame that is left, of what a cancelled task
/// awaited. Python code that runs then would take that exception for its own, and lose it or crash; so it is put aside
/// meanwhile, as `CPython` does for finalizers.
pub fn at_end(end: impl FnOnce(Python<'_>)) {
    // Nobody is left to give anything to where there is no interpreter any more.
    let _ = Python::try_attach(|py| {
        let on_its_way = if PyErr::occurred(py) { PyErr::take(py) } else { None };
        end(py);
        if let Some(error) = on_its_way {
            error.restore(py);
        }
    });
}
