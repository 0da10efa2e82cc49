//! Shared memory: one ledger for all processes of a host that name the same limiter, without a server.
//!
//! A file is mapped by all; `docs/shared-memory.md` tells the protocol. In short: whoever decides takes the `lock`,
//! brings its books up to date from the copy that holds, decides with the same arithmetic as in memory, writes the other
//! copy and flips. Slices of windows are written where nobody looks before that flip. What a process has out is
//! counted on its own line of `members`, and freed when it is dead. A bell wakes those who wait elsewhere.

mod atomic;
mod books;
mod file;
mod flip;
mod layout;
mod lock;
mod map;
mod member;
mod members;
mod ring;
mod terms;
mod waits;
pub mod watch;

pub use file::{Trouble, after_fork, forks, path};
pub(crate) use member::Shared;
pub use terms::OnConflict;
