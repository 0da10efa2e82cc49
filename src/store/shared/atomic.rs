//! The atomics of the protocol: those of the machine, or those of loom, which tries every order that they allow.

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU64, Ordering};
