//! The atomics of the protocol. Its model puts those of loom in this place, which tries every order that they allow.

pub use std::sync::atomic::{AtomicU64, Ordering};
