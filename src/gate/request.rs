//! What a gate is asked, and what it answers.

use std::fmt;
use std::sync::Arc;

use crate::clock::Nanos;
use crate::cost::Cost;
use crate::ledger::Oversize;
use crate::queue::{KeyId, Ticket};
use crate::rate::Seconds;
use crate::store::redis::wire;

use super::Exhausted;

/// Nested calls go before all others: whoever they belong to holds a slot already, and must get on to give it back.
pub(super) const NESTED: i64 = 1 << 40;

/// A call that asks to leave.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// What it is charged.
    pub cost: Cost,
    /// Whom it belongs to.
    pub key: Option<&'a str>,
    /// A higher one goes first.
    pub priority: i32,
    /// How long it is ready to wait, in nanoseconds: 0 is now or never.
    pub timeout: Option<Nanos>,
    /// Whether it happens inside a permit of this limiter: it takes no slot then.
    pub nested: bool,
}

impl Request<'_> {
    /// Its place among the priorities.
    pub(super) fn place(&self) -> i64 {
        i64::from(self.priority) + if self.nested { NESTED } else { 0 }
    }
}

/// The right to make one call, to be given back with [`Gate::release`](super::Gate::release) or
/// [`Gate::abandon`](super::Gate::abandon).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a grant holds a slot until it is released"]
pub struct Grant {
    /// What was charged.
    pub cost: Cost,
    /// When.
    pub charged_at: Nanos,
    /// How long the call waited, in nanoseconds.
    pub waited: Nanos,
    /// When, by the clock of a store at a distance, if that decided.
    pub(super) at: Option<wire::Micros>,
    pub(super) key: Option<KeyId>,
    pub(super) slot: bool,
    pub(super) epoch: u32,
}

impl Grant {
    /// The grant after its release, when its key may have been forgotten and its name given to another: it can still be
    /// settled, in the rates that all share.
    pub fn released(self) -> Self {
        Self { key: None, ..self }
    }
}

/// Why a call may not leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No wait can satisfy it.
    Oversize(Oversize),
    /// It would have to wait for longer than it is ready to: this long at the least, in nanoseconds.
    Timeout(Nanos),
    /// So many wait already, and no more may.
    QueueFull(usize),
    /// The provider said that the quota is spent: no wait that anyone would sit out can help.
    Exhausted(Exhausted),
    /// The store is of no use, and why.
    Store(&'static str),
    /// The store cannot be asked, and nothing may leave without it. What happened to it, in words.
    Unavailable(Arc<str>),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Oversize(oversize) => oversize.fmt(f),
            Self::Timeout(wait) => write!(f, "the wait would be {} seconds at the least", Seconds(*wait)),
            Self::QueueFull(waiting) => write!(f, "{waiting} calls wait already, and no more may (max_waiting)"),
            Self::Store(why) => f.write_str(why),
            Self::Exhausted(exhausted) => {
                let of = exhausted.dimension.map_or(String::new(), |dimension| format!(" of {dimension}"));
                write!(f, "the provider said that the quota{of} is spent")
            }
            Self::Unavailable(why) => write!(f, "the store cannot be asked: {why}"),
        }
    }
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may leave now.
    Granted(Grant),
    /// It waits, under this name.
    Queued(Ticket),
    /// It may not.
    Refused(Refusal),
}

/// What became of someone who waited.
pub type Outcome = Result<Grant, Refusal>;
