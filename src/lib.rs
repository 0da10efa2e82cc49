//! Penstock: a gate in front of LLM provider calls.
//!
//! The core is sans-I/O: each decision takes `now` and says what to do; nothing here sleeps, spawns, locks a loop or
//! reads a clock. The same code runs under asyncio, under threads and in a simulation that passes a day in a second.

pub mod cost;
pub mod estimate;
pub mod provider;
pub mod retry;
