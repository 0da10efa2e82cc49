//! The atomics of the protocol: those of the machine, or those of loom, which tries every order that they allow.

#[cfg(all(loom, test))]
pub use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(all(loom, test)))]
pub use std::sync::atomic::{AtomicU64, Ordering};
