//! Where everything is in the mapped file, in words of 64 bits.
//!
//! | words | what is there |
//! |---|---|
//! | 0 to 511 | the head: what file this is, the lock, the bell, the rates it was made with |
//! | 512 to 4,095 | how long calls waited |
//! | 4,096 to 12,287 | a line for each member |
//! | 12,288 on | the arenas: the books twice, and the slices of windows |

use crate::ledger::MOST_RATES;
use crate::window::PLACES;

/// What a file begins with.
pub const MAGIC: u64 = u64::from_le_bytes(*b"penstock");
/// The layout; another one is another number here.
pub const VERSION: u64 = 1;

pub const MAGIC_AT: usize = 0;
pub const VERSION_AT: usize = 1;
/// Two words: of which boot of the machine the times are.
pub const BOOT_AT: usize = 2;
/// Whose clock the times are of: 0 is the host's.
pub const CLOCK_AT: usize = 4;
/// 1 when the file is made. Whoever finds it unmade, and holds the lock for that, makes it.
pub const READY_AT: usize = 5;
/// One more than the highest member that ever was.
pub const HIGH_AT: usize = 6;
/// 1 when the concurrency is bounded, or ever was: whoever gives a permit back must take the lock for that.
pub const BOUNDED_AT: usize = 7;
/// The lock, alone on its cache line.
pub const LOCK_AT: usize = 16;
/// The bell, of 32 bits, on the first half of a word of its own cache line.
pub const BELL_AT: usize = 24;
/// The rates and the concurrency that the limiter was made with.
pub const TERMS_AT: usize = 64;
pub const TERMS_WORDS: usize = 256;

pub const WAITS_AT: usize = 512;
pub const WAITS_WORDS: usize = 2_048;

pub const MEMBERS_AT: usize = 4_096;
pub const MEMBER_WORDS: usize = 8;
/// How many members there may be at once.
pub const MEMBERS: usize = 1_024;

pub const ARENAS_AT: usize = MEMBERS_AT + MEMBERS * MEMBER_WORDS;
pub const ARENAS: usize = 4;
/// How often the books were closed; the last bit says which of the two copies holds.
pub const EDITION_AT: usize = 0;
/// One more than the member that may still write here, though the lock was taken from it.
pub const HAUNTED_AT: usize = 8;
pub const BOOKS_AT: usize = 1_024;
pub const BOOKS_WORDS: usize = 1_024;
/// Within the books: the rates come first, as they seldom change.
pub const RATES_WORDS: usize = 256;
pub const RINGS_AT: usize = 4_096;
/// A slice is its end and its amount.
#[allow(clippy::cast_possible_truncation)] // a small number
pub const RING_WORDS: usize = PLACES as usize * 2;
pub const ARENA_WORDS: usize = RINGS_AT + MOST_RATES * RING_WORDS;

/// The whole file.
pub const WORDS: usize = ARENAS_AT + ARENAS * ARENA_WORDS;
pub const BYTES: usize = WORDS * 8;

/// Where an arena begins.
pub const fn arena(number: usize) -> usize {
    ARENAS_AT + number * ARENA_WORDS
}

/// Where a copy of the books begins, in an arena.
#[allow(clippy::cast_possible_truncation)] // one bit
pub const fn books(edition: u64) -> usize {
    BOOKS_AT + (edition & 1) as usize * BOOKS_WORDS
}
