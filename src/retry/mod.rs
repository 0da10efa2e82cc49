//! Retries: one decision per failed attempt, stop, or go on after this long.
//!
//! - [`policy`] decides, from what the provider said and what the caller allows;
//! - [`backoff`] computes the delay where the provider named none;
//! - [`budget`] keeps the retries of all calls together within a share of the calls;
//! - [`memory`] remembers the calls that were given up, for layers above that send the same request again.
//!
//! Like the rest of the core this is sans-I/O: nothing here sleeps or reads a clock. Times are nanoseconds of any
//! monotonic clock, and chance comes from a [`Random`] with a seed, so that every decision can be repeated.

pub mod argument;
pub mod backoff;
pub mod budget;
pub mod memory;
pub mod policy;
pub mod random;

pub use argument::InvalidArgument;
pub use backoff::{Backoff, Jitter};
pub use budget::{Account, CallSlot, RetryBudget, RetrySlot};
pub use memory::Memory;
pub use policy::{Decision, Failure, FailureKind, Policy, Progress, StopReason};
pub use random::Random;

pub use crate::clock::Nanos;
