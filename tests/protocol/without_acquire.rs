//! What is read may be older than what told of it: nothing is acquired.

use super::layout;

mod atomic {
    pub use loom::sync::atomic::AtomicU64;
    use loom::sync::atomic::Ordering as True;

    /// Orderings, by the names that the protocol calls them.
    pub struct Ordering;

    #[allow(non_upper_case_globals)]
    impl Ordering {
        pub const Relaxed: True = True::Relaxed;
        pub const Acquire: True = True::Relaxed;
        pub const Release: True = True::Release;
        pub const AcqRel: True = True::Release;
    }
}
#[path = "../../src/store/shared/flip.rs"]
mod flip;
#[path = "../../src/store/shared/lock.rs"]
mod lock;
#[path = "model.rs"]
pub mod model;
