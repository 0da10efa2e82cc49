//! Two copies of the books and a number that says which holds. The next state is written over the copy that does not,
//! and holds from the one store on that raises the number: a process that is killed before it has changed nothing.

use super::atomic::{AtomicU64, Ordering};
use super::layout::{BOOKS_WORDS, EDITION_AT, books};

/// Which edition of the books holds.
#[inline]
pub fn edition(arena: &[AtomicU64]) -> u64 {
    arena[EDITION_AT].load(Ordering::Acquire)
}

/// The copy of an edition.
#[inline]
pub fn copy_of(arena: &[AtomicU64], edition: u64) -> &[AtomicU64] {
    &arena[books(edition)..][..BOOKS_WORDS]
}

/// Writes the copy that does not hold, and lets it hold. Gives the number of its edition.
#[inline]
pub fn turn_over(arena: &[AtomicU64], edition: u64, write: impl FnOnce(&[AtomicU64])) -> u64 {
    let next = edition.wrapping_add(1);
    write(copy_of(arena, next));
    arena[EDITION_AT].store(next, Ordering::Release);
    next
}

/// Whoever wrote the copy that does not hold may not have come to its end: nothing in it is taken to be there already.
pub fn distrust(arena: &[AtomicU64], edition: u64) {
    copy_of(arena, edition.wrapping_add(1))[0].store(u64::MAX, Ordering::Relaxed);
}

/// Copies the books that hold, as of `edition`, into another arena.
pub fn copy(from: &[AtomicU64], edition: u64, into: &[AtomicU64]) {
    for (from, into) in copy_of(from, edition).iter().zip(copy_of(into, edition)) {
        into.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    }
    distrust(into, edition);
    into[EDITION_AT].store(edition, Ordering::Release);
}
