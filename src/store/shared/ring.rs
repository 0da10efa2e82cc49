//! The slices of one window, in the mapped file.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as Local};

use super::atomic::Ordering;
use super::file::Mapped;
use super::layout::{RING_WORDS, RINGS_AT, arena};
use crate::window::{PLACES, Ring, Slice};

/// A ring of one window. It is where the books are: when they move to another arena, it moves with them.
#[derive(Debug)]
pub struct MappedRing {
    pub file: Arc<Mapped>,
    /// The arena that its gate has open.
    pub arena: Arc<AtomicUsize>,
    pub number: usize,
}

impl MappedRing {
    #[inline]
    fn at(&self, number: u64) -> usize {
        let place = usize::try_from(number % PLACES).unwrap_or(0) * 2;
        arena(self.arena.load(Local::Relaxed)) + RINGS_AT + self.number * RING_WORDS + place
    }
}

impl Ring for MappedRing {
    #[inline]
    fn get(&self, number: u64) -> Slice {
        let (at, words) = (self.at(number), self.file.words());
        Slice { last: words[at].load(Ordering::Relaxed), amount: words[at + 1].load(Ordering::Relaxed) }
    }

    #[inline]
    fn set(&self, number: u64, slice: Slice) {
        let (at, words) = (self.at(number), self.file.words());
        words[at].store(slice.last, Ordering::Relaxed);
        words[at + 1].store(slice.amount, Ordering::Relaxed);
    }
}
