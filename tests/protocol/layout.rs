//! An arena of few words, since every order of every access is tried: two copies of two words.

pub const ARENAS: usize = 2;
pub const EDITION_AT: usize = 0;
pub const HAUNTED_AT: usize = 1;
pub const BOOKS_AT: usize = 2;
pub const BOOKS_WORDS: usize = 2;
pub const ARENA_WORDS: usize = BOOKS_AT + 2 * BOOKS_WORDS;

/// Where a copy of the books begins.
#[allow(clippy::cast_possible_truncation)] // one bit
pub const fn books(edition: u64) -> usize {
    BOOKS_AT + (edition & 1) as usize * BOOKS_WORDS
}
