//! The lock: one word that says who holds it, in which arena, and how often it changed hands.
//!
//! It is held for a fraction of a microsecond. Whoever finds it held tries again for a while, then asks whether the
//! holder lives. From a dead one it is taken over. From one that lives and does not go on (stopped by a signal or a
//! debugger, frozen, starved) it is taken, too, and the books are moved to another arena: whatever the old holder still
//! writes, it writes where nobody reads, and when it lets go it finds that the lock is not its own.

use super::atomic::{AtomicU64, Ordering};

const OWNER_BITS: u32 = 16;
const ARENA_BITS: u32 = 8;
const OWNER: u64 = (1 << OWNER_BITS) - 1;
const ARENA: u64 = ((1 << ARENA_BITS) - 1) << OWNER_BITS;
const HAUNTED: u64 = 1 << (OWNER_BITS + ARENA_BITS);
const ONCE: u64 = HAUNTED << 1;

/// What the lock's word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word(pub u64);

impl Word {
    /// The member that holds it.
    #[inline]
    pub fn owner(self) -> Option<usize> {
        #[allow(clippy::cast_possible_truncation)] // 16 bits
        ((self.0 & OWNER) as usize).checked_sub(1)
    }

    /// Where the books are.
    #[inline]
    pub fn arena(self) -> usize {
        #[allow(clippy::cast_possible_truncation)] // 8 bits
        let arena = ((self.0 & ARENA) >> OWNER_BITS) as usize;
        arena % super::layout::ARENAS
    }

    /// Whether an earlier holder may still write to that arena.
    #[inline]
    pub fn is_haunted(self) -> bool {
        self.0 & HAUNTED != 0
    }

    /// The word that follows: no two are alike.
    #[inline]
    fn next(self, owner: Option<usize>, arena: usize, haunted: bool) -> Self {
        let owner = owner.map_or(0, |owner| owner as u64 + 1) & OWNER;
        let changes = (self.0 & !(OWNER | ARENA | HAUNTED)).wrapping_add(ONCE);
        Self(changes | if haunted { HAUNTED } else { 0 } | ((arena as u64) << OWNER_BITS) | owner)
    }
}

/// What it says now.
#[inline]
pub fn read(lock: &AtomicU64) -> Word {
    Word(lock.load(Ordering::Acquire))
}

#[inline]
fn swap(lock: &AtomicU64, before: Word, after: Word) -> Option<Word> {
    lock.compare_exchange(before.0, after.0, Ordering::AcqRel, Ordering::Relaxed).ok().map(|_| after)
}

/// Takes a lock that is free, or that belongs to a dead member. Gives the word if that is still what it said.
#[inline]
pub fn take(lock: &AtomicU64, seen: Word, me: usize) -> Option<Word> {
    swap(lock, seen, seen.next(Some(me), seen.arena(), seen.is_haunted()))
}

/// Takes a lock from a member that lives: the arena is haunted from here on.
pub fn seize(lock: &AtomicU64, seen: Word, me: usize) -> Option<Word> {
    swap(lock, seen, seen.next(Some(me), seen.arena(), true))
}

/// Says that the books are in another arena now.
pub fn moved(lock: &AtomicU64, held: Word, arena: usize) -> Option<Word> {
    swap(lock, held, held.next(held.owner(), arena, false))
}

/// Lets go. Gives whether it was still held: if not, what was written was written where nobody reads.
#[inline]
pub fn release(lock: &AtomicU64, held: Word) -> bool {
    let free = held.next(None, held.arena(), held.is_haunted());
    lock.compare_exchange(held.0, free.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}
