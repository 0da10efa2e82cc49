//! Penstock: a gate in front of LLM provider calls.
//!
//! The core is sans-I/O: each decision takes `now` and says what to do; nothing here sleeps, spawns, locks a loop or
//! reads a clock. The same code runs under asyncio, under threads and in a simulation that passes a day in a second.

pub mod bucket;
pub mod clock;
pub mod cost;
pub mod estimate;
pub mod gate;
pub mod keys;
pub mod ledger;
pub mod pace;
pub mod provider;
#[cfg(feature = "python")]
mod python;
pub mod queue;
pub mod rate;
pub mod retry;
pub mod stats;
pub mod window;
