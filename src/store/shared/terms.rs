//! The limits that a file was made with, and what becomes of a limiter that asks for others.

use std::fmt::Write as _;
use std::io;

use super::atomic::AtomicU64;
use super::books::Words;
use super::layout::{TERMS_AT, TERMS_WORDS};
use crate::ledger::Ledger;
use crate::rate::Seconds;
use crate::words::Carrier;

/// What happens when others that live use the same name with other limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// Neither is changed, and who came later is told.
    #[default]
    Error,
    /// Theirs hold, for both.
    Keep,
    /// The new ones hold, for both.
    Replace,
}

/// Limits that a limiter is made with.
#[derive(Debug)]
pub struct Terms {
    pub ledger: Ledger,
    pub concurrency: u64,
}

impl PartialEq for Terms {
    fn eq(&self, other: &Self) -> bool {
        self.concurrency == other.concurrency && self.ledger.is_like(&other.ledger)
    }
}

impl Terms {
    fn carry(&mut self, carrier: &mut impl Carrier) -> bool {
        self.ledger.carry_rates(carrier) && {
            carrier.word(&mut self.concurrency);
            self.concurrency > 0
        }
    }

    /// Writes them down in the file.
    pub fn write(&mut self, words: &[AtomicU64]) {
        self.carry(&mut Words::writing(&words[TERMS_AT..TERMS_AT + TERMS_WORDS]));
    }

    /// Those that the file was made with.
    ///
    /// # Errors
    /// When they cannot be.
    pub fn read(words: &[AtomicU64]) -> io::Result<Self> {
        let mut terms = Self { ledger: Ledger::new(&[], None, 0), concurrency: 1 };
        let sound = terms.carry(&mut Words::reading(&words[TERMS_AT..TERMS_AT + TERMS_WORDS]));
        if sound { Ok(terms) } else { Err(io::Error::other("it is corrupted: its rates cannot be")) }
    }

    /// As people write them.
    pub fn shown(&self) -> String {
        let mut text = String::new();
        for (dimension, rate) in self.ledger.configured() {
            let guard = if rate.window() { "" } else { " without a window" };
            let _ = write!(text, "{dimension} {rate} (burst {}{guard}), ", rate.burst());
        }
        if self.concurrency != u64::MAX {
            let _ = write!(text, "concurrency {}, ", self.concurrency);
        }
        if let Some(jitter) = self.ledger.jitter() {
            let _ = write!(text, "network_jitter {}, ", Seconds(jitter));
        }
        let text = text.trim_end_matches(", ");
        if text.is_empty() { "no limits".to_owned() } else { text.to_owned() }
    }
}
