//! Where a limiter keeps what all of its calls share: in this process's memory, or outside, for several processes.
//!
//! A gate decides with its `Books`, whatever the store: one arithmetic serves all. Around every decision it opens the
//! books and closes them. In memory that is nothing; a store that is shared takes its lock and brings the books up to
//! date when they are opened, and makes what was decided visible to all, in one step, when they are closed. Who waits, in
//! what order and until when stays with each gate.

mod books;
pub mod redis;
#[cfg(unix)]
pub mod shared;
mod turn;

use std::fmt;

use crate::clock::Nanos;
use crate::stats::Waits;

pub use books::Exhausted;
pub(crate) use books::{Books, Spent};
pub(crate) use turn::{GRACE, Turn};

/// Whether a system has what a store of several processes needs, which is a `unix` one's: files that are mapped and
/// locked, pipes that wake who waits. `url` is shown in the message, so that it must not have a password any more.
///
/// # Errors
/// What to tell the user, where it has not.
pub fn check_support(url: &str, unix: bool) -> Result<(), String> {
    if unix || url == "memory://" {
        return Ok(());
    }
    Err(format!("store={url:?} is not supported on this system: it needs Linux, macOS or another Unix"))
}

/// What one gate has out: its part of what the books say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Part {
    /// Permits.
    pub(crate) in_flight: u64,
    /// Those that hold a slot.
    pub(crate) slots: u64,
    /// Calls that wait.
    pub(crate) waiting: u64,
    /// When it looks whether it is its turn; never, if it waits to be told.
    pub(crate) looks_at: Nanos,
}

/// A store that several gates share. A gate whose books are in memory alone has none.
pub(crate) trait Store: fmt::Debug + Send {
    /// Opens the books: nobody else changes them from here on, and they are as the last one left them.
    fn open(&mut self, books: &mut Books, now: Nanos);

    /// Closes the books: what was decided holds for all, from one moment to the next. Gives whether it does: if not, the
    /// gate stood still for so long that others went on without it, and what it charged is to be charged again.
    fn close(&mut self, books: &mut Books, part: &Part) -> bool;

    /// Takes note of a part that is smaller now, without opening the books: while nobody bounds the concurrency, nobody
    /// waits for what is given back. Gives whether that is so; if not, nothing is noted.
    fn note(&mut self, part: &Part) -> bool;

    /// Tells all gates that wait to look again, when the books are closed.
    fn call(&mut self);

    /// How long calls waited, of all gates.
    fn record(&self, wait: Nanos);

    /// How long calls waited, of all gates.
    fn waits(&self) -> Waits;

    /// What all gates have out together, and the calls that wait at all of them.
    fn parts(&self) -> Part;

    /// This process is a fork: its part is the parent's.
    fn disown(&mut self);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_without_shared_memory_says_so_and_keeps_its_own() {
        for url in ["shm://openai", "redis://localhost:6379/0"] {
            let told = check_support(url, false).unwrap_err();
            assert!(told.contains(url) && told.contains("not supported on this system"), "{told}");
            assert_eq!(check_support(url, true), Ok(()));
        }
        assert_eq!(check_support("memory://", false), Ok(()));
    }
}
