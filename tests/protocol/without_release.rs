//! What is written may be seen in any order: nothing is released.

use super::layout;

mod atomic {
    pub use loom::sync::atomic::AtomicU64;
    use loom::sync::atomic::Ordering as True;

    /// Orderings, by the names that the protocol calls them.
    pub struct Ordering;

    #[allow(non_upper_case_globals)]
    impl Ordering {
        pub const Relaxed: True = True::Relaxed;
        pub const Acquire: True = True::Acquire;
        pub const Release: True = True::Relaxed;
        pub const AcqRel: True = True::Acquire;
    }
}
#[path = "../../src/store/shared/flip.rs"]
mod flip;
#[path = "../../src/store/shared/lock.rs"]
mod lock;
#[path = "model.rs"]
pub mod model;
