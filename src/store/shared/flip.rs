//! Two copies of the books and a number that says which holds. The next state is written over the copy that does not,
//! and holds from the one store on that raises the number: a process that is killed before it has changed nothing.

use super::atomic::{AtomicU64, Ordering};
use super::layout::{BOOKS_WORDS, EDITION_AT, RATES_WORDS, books};
use crate::store::Books;
use crate::words::Carrier;

/// Words of the file, one after the other: brought out of it, or, if it `KEEPS` them, put in.
pub struct Words<'a, const KEEPS: bool> {
    places: std::slice::Iter<'a, AtomicU64>,
}

impl<'a> Words<'a, false> {
    /// Brings words out.
    pub fn reading(words: &'a [AtomicU64]) -> Self {
        Self { places: words.iter() }
    }
}

impl<'a> Words<'a, true> {
    /// Keeps words.
    pub fn writing(words: &'a [AtomicU64]) -> Self {
        Self { places: words.iter() }
    }
}

impl<const KEEPS: bool> Carrier for Words<'_, KEEPS> {
    #[inline]
    fn word(&mut self, word: &mut u64) {
        match self.places.next() {
            Some(place) if KEEPS => place.store(*word, Ordering::Relaxed),
            Some(place) => *word = place.load(Ordering::Relaxed),
            None => {}
        }
    }
}

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

/// Brings `books` up to date. Gives whether they can be.
pub fn load(arena: &[AtomicU64], edition: u64, into: &mut Books) -> bool {
    let (rates, rest) = copy_of(arena, edition).split_at(RATES_WORDS);
    if rates[0].load(Ordering::Relaxed) != into.ledger.edition() && !into.ledger.carry_rates(&mut Words::reading(rates))
    {
        return false;
    }
    into.carry(&mut Words::reading(rest));
    into.is_sound()
}

/// Makes `books` the ones that hold, as the edition after this one. Gives the number of that.
#[inline]
pub fn store(arena: &[AtomicU64], edition: u64, from: &mut Books) -> u64 {
    turn_over(arena, edition, |copy| {
        let (rates, rest) = copy.split_at(RATES_WORDS);
        if rates[0].load(Ordering::Relaxed) != from.ledger.edition() {
            from.ledger.carry_rates(&mut Words::writing(rates));
        }
        from.carry(&mut Words::writing(rest));
    })
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
