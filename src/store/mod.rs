//! Where a limiter keeps what all of its calls share: in this process's memory, or outside, for several processes.
//!
//! A gate decides with its [`Books`], whatever the store: one arithmetic serves all. Around every decision it opens the
//! books and closes them. In memory that is nothing; a store that is shared takes its lock and brings the books up to
//! date when they are opened, and makes what was decided visible to all, in one step, when they are closed. Who waits, in
//! what order and until when stays with each gate.

mod books;

use std::fmt;

use crate::clock::Nanos;

pub use books::Exhausted;
pub(crate) use books::{Books, Spent};

/// What one gate has out: its part of what the books say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// Permits.
    pub(crate) in_flight: u64,
    /// Those that hold a slot.
    pub(crate) slots: u64,
    /// Calls that wait.
    pub(crate) waiting: u64,
}

/// A store that several gates share. A gate whose books are in memory alone has none.
pub(crate) trait Store: fmt::Debug + Send {
    /// Opens the books: nobody else changes them from here on, and they are as the last one left them.
    fn open(&mut self, books: &mut Books, now: Nanos);

    /// Closes the books: what was decided holds for all, from one moment to the next.
    fn close(&mut self, books: &mut Books, part: &Part);
}
