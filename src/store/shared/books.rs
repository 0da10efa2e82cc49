//! The books as words of a copy in the file.

use super::atomic::{AtomicU64, Ordering};
use super::flip;
use super::layout::RATES_WORDS;
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

/// Brings `books` up to date with an edition. Gives whether they can be.
pub fn load(arena: &[AtomicU64], edition: u64, into: &mut Books) -> bool {
    let (rates, rest) = flip::copy_of(arena, edition).split_at(RATES_WORDS);
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
    flip::turn_over(arena, edition, |copy| {
        let (rates, rest) = copy.split_at(RATES_WORDS);
        if rates[0].load(Ordering::Relaxed) != from.ledger.edition() {
            from.ledger.carry_rates(&mut Words::writing(rates));
        }
        from.carry(&mut Words::writing(rest));
    })
}
