//! The members: the gates that share a file, each with a line that only it writes, under the lock.
//!
//! A member is alive as long as its process holds a lock on the member's byte of the file. The operating system lets go
//! of that when the process ends, in whatever way, before its parent has heard of it; it does not when it is stopped; and
//! no number of a process is asked for, which another may bear by now, or which means nothing in another container.

use super::atomic::{AtomicU64, Ordering};
use super::layout::{HIGH_AT, MEMBER_WORDS, MEMBERS, MEMBERS_AT};
use crate::clock::Nanos;
use crate::store::{Books, GRACE, Part, Turn};

const SLOTS: usize = 0;
const IN_FLIGHT: usize = 1;
const WAITING: usize = 2;
const BEGINS: usize = 3;
const LOOKS: usize = 4;
const WHO: usize = 5;
/// What no gate signs with.
pub const NOBODY: u64 = 0;

/// The line of one member.
#[derive(Clone, Copy)]
pub struct Member<'a>(&'a [AtomicU64]);

impl<'a> Member<'a> {
    /// The line of that number.
    #[inline]
    pub fn of(words: &'a [AtomicU64], number: usize) -> Self {
        let begin = MEMBERS_AT + number.min(MEMBERS - 1) * MEMBER_WORDS;
        Self(&words[begin..begin + MEMBER_WORDS])
    }

    #[inline]
    fn get(self, field: usize) -> u64 {
        self.0[field].load(Ordering::Relaxed)
    }

    #[inline]
    fn set(self, field: usize, value: u64) {
        // Most often nothing changes; a line that is only read need not travel.
        if self.get(field) != value {
            self.0[field].store(value, Ordering::Relaxed);
        }
    }

    /// Whose line it is: a number that no other gate has.
    #[inline]
    pub fn who(self) -> u64 {
        self.get(WHO)
    }

    /// It is of another from here on.
    pub fn sign(self, who: u64) {
        self.set(WHO, who);
    }

    /// Its slots.
    #[inline]
    pub fn slots(self) -> u64 {
        self.get(SLOTS)
    }

    /// How many of its calls wait.
    #[inline]
    pub fn waiting(self) -> u64 {
        self.get(WAITING)
    }

    /// Whether anything is written here that its end would free.
    pub fn has_anything(self) -> bool {
        self.get(SLOTS) | self.get(IN_FLIGHT) | self.get(WAITING) != 0
    }

    /// What it has.
    #[inline]
    pub fn write(self, part: &Part, begins: u64) {
        self.set(SLOTS, part.slots);
        self.set(IN_FLIGHT, part.in_flight);
        self.set(WAITING, part.waiting);
        self.set(BEGINS, begins);
        self.set(LOOKS, part.looks_at);
    }

    /// What it has is less than what is written, and so it is if `alone`, which is asked when that is written: all that
    /// come after it see it, or it sees them. If not, what was written stays.
    pub fn lower(self, from: &Part, to: &Part, alone: impl FnOnce() -> bool) -> bool {
        self.0[IN_FLIGHT].store(to.in_flight, Ordering::Relaxed);
        self.0[SLOTS].store(to.slots, Ordering::SeqCst);
        let alone = alone();
        if !alone {
            self.0[SLOTS].store(from.slots, Ordering::SeqCst);
        }
        alone
    }

    /// It has nothing, and is nobody's.
    pub fn clear(self) {
        self.write(&Part::default(), 0);
        self.sign(NOBODY);
    }

    /// It is told to look now.
    fn call(self, now: Nanos) {
        if self.waiting() > 0 && self.get(LOOKS) > now {
            self.set(LOOKS, now);
        }
    }
}

/// The lines that were ever used.
pub fn all(words: &[AtomicU64]) -> impl Iterator<Item = (usize, Member<'_>)> {
    let high = usize::try_from(words[HIGH_AT].load(Ordering::Acquire)).unwrap_or(MEMBERS).min(MEMBERS);
    (0..high).map(|number| (number, Member::of(words, number)))
}

/// Counts anew what the books say of all members together. Slots that came free without a word are taken to have done so
/// now.
pub fn recount(words: &[AtomicU64], books: &mut Books, now: Nanos) {
    let before = books.slots;
    (books.slots, books.gates_waiting) = (0, 0);
    for (_, member) in all(words) {
        books.slots = books.slots.saturating_add(member.slots());
        books.gates_waiting += u64::from(member.waiting() > 0);
    }
    if books.slots < before && before >= books.slots_now() {
        books.slot_freed = books.slot_freed.max(now);
    }
}

/// Brings `turn` together with those that wait and come when it is their turn, but for `me`.
pub fn rivals(words: &[AtomicU64], me: usize, now: Nanos, turn: &mut Turn) {
    for (number, member) in all(words) {
        if number != me && member.waiting() > 0 && now <= member.get(LOOKS).saturating_add(GRACE) {
            turn.meet(member.get(BEGINS));
        }
    }
}

/// Tells all that wait to look now.
pub fn call(words: &[AtomicU64], now: Nanos) {
    for (_, member) in all(words) {
        member.call(now);
    }
}

/// What all have together.
pub fn together(words: &[AtomicU64]) -> Part {
    let mut part = Part::default();
    for (_, member) in all(words) {
        part.slots = part.slots.saturating_add(member.slots());
        part.in_flight = part.in_flight.saturating_add(member.get(IN_FLIGHT));
        part.waiting = part.waiting.saturating_add(member.waiting());
    }
    part
}
