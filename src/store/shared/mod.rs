//! Shared memory: one ledger for all processes of a host that name the same limiter, without a server.
//!
//! A file is mapped by all; `docs/shared-memory.md` tells the protocol. In short: whoever decides takes the `lock`,
//! brings its books up to date from the copy that holds, decides with the same arithmetic as in memory, writes the other
//! copy and flips. Slices of windows are written where nobody looks before that flip. What a process has out is
//! counted on its own line of `members`, and freed when it is dead. A bell wakes those who wait elsewhere.

mod atomic;
#[cfg(not(loom))]
mod file;
mod flip;
mod layout;
mod lock;
#[cfg(not(loom))]
mod map;
#[cfg(not(loom))]
mod members;
#[cfg(all(loom, test))]
mod model;
#[cfg(not(loom))]
mod ring;
#[cfg(not(loom))]
mod terms;
#[cfg(not(loom))]
mod waits;
#[cfg(not(loom))]
pub mod watch;

#[cfg(not(loom))]
mod member;

#[cfg(not(loom))]
pub use file::{Trouble, after_fork, forks, path};
#[cfg(not(loom))]
pub(crate) use member::Shared;
#[cfg(not(loom))]
pub use terms::OnConflict;
