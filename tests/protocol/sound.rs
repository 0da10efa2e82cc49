//! The protocol as it is.

use super::layout;

mod atomic {
    pub use loom::sync::atomic::{AtomicU64, Ordering};
}
#[path = "../../src/store/shared/flip.rs"]
mod flip;
#[path = "../../src/store/shared/lock.rs"]
mod lock;
#[path = "model.rs"]
pub mod model;
