//! One gate's membership in a file: how it opens the books and closes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as Local};
use std::time::{Duration, Instant};

use super::atomic::{AtomicU64, Ordering};
use super::file::{self, FULL, Mapped, Trouble, forks, unusable};
use super::layout::{
    ARENA_WORDS, ARENAS, BOUNDED_AT, HAUNTED_AT, HIGH_AT, LOCK_AT, RINGS_AT, WAITS_AT, WAITS_WORDS, arena,
};
use super::lock::{self, Word};
use super::members::{self, Member, NOBODY};
use super::ring::MappedRing;
use super::terms::{OnConflict, Terms};
use super::{books, flip, waits, watch};
use crate::clock::{Nanos, SECOND};
use crate::ledger::{Ledger, MOST_RATES};
use crate::stats::Waits;
use crate::store::{Books, Part, Store};
use crate::window::Ring;

/// How long the lock may stay with one that lives before it is taken from it.
const STANDSTILL: Duration = Duration::from_millis(100);
/// How often the lock is looked at while it stays with the same holder before whoever wants it sleeps, and for how long
/// it sleeps then.
const LOOKS: u32 = 12;
const NAP: Duration = Duration::from_micros(50);
/// Hints to the processor between two looks at first, and at the most: some microseconds. To bring the books from one
/// processor's cache to another's takes longer than several decisions there, so it is not to be done for each.
const BACKOFF: (u32, u32) = (16, 256);
/// How far the books may be ahead of the clock: readings of one clock, taken a moment apart.
const AHEAD: Nanos = 60 * SECOND;

const CORRUPTED: &str = "what the shared memory holds cannot be: it was overwritten, or is of another machine";

/// A gate's membership.
#[derive(Debug)]
pub struct Shared {
    file: Arc<Mapped>,
    /// Its number; nothing if there was none to be had.
    member: Option<usize>,
    forks: u32,
    /// The lock's word, while the books are open.
    held: Option<Word>,
    /// The arena that is open, as the rings see it.
    arena: Arc<AtomicUsize>,
    edition: u64,
    /// The arena and the edition that the gate's own books are as of.
    known: Option<(usize, u64)>,
    /// What its line says.
    written: Part,
    /// Whether its line is another's still.
    fresh: bool,
    /// How it signs its line.
    who: u64,
    /// Whether sums are to be made anew: someone was cut off between one step and the next.
    recount: bool,
    calls: bool,
    /// Which rates there were when the books were opened.
    rates: u64,
    now: Nanos,
}

impl Shared {
    /// Becomes a member of the limiter of that name; of one with these limits, unless it is said what else.
    ///
    /// # Errors
    /// [`Trouble`] for a name that cannot be, a file that cannot be used, or other limits.
    pub fn attach(
        name: &str,
        ledger: Ledger,
        concurrency: u64,
        on_conflict: OnConflict,
        now: Nanos,
    ) -> Result<(Self, Books), Trouble> {
        let path = file::path(name)?;
        let mut terms = Terms { ledger, concurrency };
        let file = Mapped::open(&path, |file| {
            file.reserve(arena(0), ARENA_WORDS)?;
            let mut terms = Terms { ledger: terms.ledger.clone(), concurrency: terms.concurrency };
            terms.ledger.keep_in(Vec::new());
            terms.ledger.begin_editions();
            terms.write(file.words());
            let mut books = Books::new(terms.ledger, Some(terms.concurrency), now);
            flip::distrust(area(file.words(), 0), 0);
            flip::distrust(area(file.words(), 0), 1);
            books::store(area(file.words(), 0), 0, &mut books);
            Ok(())
        })?;
        let _one_at_a_time = file.begin_joining()?;
        let company = file.has_company();
        let made_with = Terms::read(file.words()).map_err(|error| unusable(&path, &error.to_string()))?;
        let differs = made_with != terms;
        let member = file.join()?;
        let mut shared = Self {
            file: Arc::clone(&file),
            member: Some(member),
            forks: forks(),
            held: None,
            arena: Arc::new(AtomicUsize::new(0)),
            edition: 0,
            known: None,
            written: Part::default(),
            fresh: true,
            who: signature(),
            recount: true,
            calls: false,
            rates: 0,
            now,
        };
        let mut ledger = Ledger::new(&[], None, now);
        ledger.keep_in(shared.rings());
        let mut books = Books::new(ledger, None, now);
        shared.open(&mut books, now);
        let ahead = books.last > now.saturating_add(AHEAD);
        if books.broken.is_some() || ahead {
            shared.close(&mut books, &Part::default());
            return Err(unusable(&path, if ahead { "its times lie in the future" } else { CORRUPTED }));
        }
        if differs && company && on_conflict == OnConflict::Error && !books.are_of(&terms.ledger, terms.concurrency) {
            shared.close(&mut books, &Part::default());
            return Err(Trouble::Conflict(format!(
                "other processes use the shared memory {name:?} with other limits: theirs are {}, and these are {}. Make \
                 them equal, or say on_conflict='keep' (theirs hold) or on_conflict='replace' (these hold, for all)",
                made_with.shown(),
                terms.shown()
            )));
        }
        if differs && (on_conflict == OnConflict::Replace || !company) {
            books.replace(&terms.ledger, terms.concurrency, now);
            terms.ledger.keep_in(Vec::new());
            terms.write(file.words());
            shared.call();
        }
        shared.close(&mut books, &Part::default());
        Ok((shared, books))
    }

    fn rings(&self) -> Vec<Arc<dyn Ring>> {
        let ring = |number| {
            let (file, arena) = (Arc::clone(&self.file), Arc::clone(&self.arena));
            Arc::new(MappedRing { file, arena, number }) as Arc<dyn Ring>
        };
        (0..MOST_RATES).map(ring).collect()
    }

    #[inline]
    fn lock(&self) -> &AtomicU64 {
        &self.file.words()[LOCK_AT]
    }

    /// Takes the lock.
    #[inline]
    fn take(&mut self, me: usize) -> Word {
        let seen = lock::read(self.lock());
        if seen.owner().is_none()
            && !seen.is_haunted()
            && let Some(held) = lock::take(self.lock(), seen, me)
        {
            return held;
        }
        self.contend(me)
    }

    #[cold]
    fn contend(&mut self, me: usize) -> Word {
        let (mut watched, mut since, mut tries, mut backoff) =
            (lock::read(self.lock()), Instant::now(), 0_u32, BACKOFF.0);
        loop {
            let seen = lock::read(self.lock());
            if seen != watched {
                (watched, since, tries) = (seen, Instant::now(), 0);
            }
            let taken = match seen.owner() {
                None => lock::take(self.lock(), seen, me),
                // Held by this gate itself: its last decision was cut off.
                Some(owner) if owner == me && self.has_line(me) => self.take_over(seen, me, owner),
                Some(owner) if tries > LOOKS + 8 && tries.is_multiple_of(8) => {
                    if self.file.lives(owner) {
                        if since.elapsed() > STANDSTILL { self.seize(seen, me, owner) } else { None }
                    } else {
                        self.take_over(seen, me, owner)
                    }
                }
                Some(_) => None,
            };
            if let Some(held) = taken {
                if !held.is_haunted() {
                    return held;
                }
                if let Some(held) = self.move_out(held) {
                    return held;
                }
                // Nowhere to go until one of those that stand still goes on or ends.
                lock::release(self.lock(), held);
            }
            tries += 1;
            if tries < LOOKS {
                (0..backoff).for_each(|_| std::hint::spin_loop());
                backoff = (backoff * 2).min(BACKOFF.1);
            } else {
                // The holder was preempted. To yield would not let it run, and cost a slice of time each time, so that
                // one that yields for a while does not run for tens of milliseconds (EEVDF, since Linux 6.6).
                std::thread::sleep(NAP);
            }
        }
    }

    /// Takes the lock of a member that is dead: what it left half done is left where it is.
    fn take_over(&mut self, seen: Word, me: usize, dead: usize) -> Option<Word> {
        let held = lock::take(self.lock(), seen, me)?;
        let words = self.file.words();
        let arena = area(words, held.arena());
        flip::distrust(arena, flip::edition(arena));
        if dead != me {
            Member::of(words, dead).clear();
        }
        self.recount = true;
        Some(held)
    }

    /// Takes the lock from a member that stands still, if there is a place to go to.
    fn seize(&mut self, seen: Word, me: usize, owner: usize) -> Option<Word> {
        self.quiet(seen.arena())?;
        let held = lock::seize(self.lock(), seen, me)?;
        area(self.file.words(), held.arena())[HAUNTED_AT].store(owner as u64 + 1, Ordering::Relaxed);
        self.recount = true;
        Some(held)
    }

    /// An arena in which nobody may write any more, other than this one.
    fn quiet(&self, but: usize) -> Option<usize> {
        (0..ARENAS).find(|&other| {
            let haunted = area(self.file.words(), other)[HAUNTED_AT].load(Ordering::Relaxed);
            let haunts = usize::try_from(haunted).ok().and_then(|member| member.checked_sub(1));
            other != but && haunts.is_none_or(|member| !self.file.lives(member))
        })
    }

    /// Moves the books to an arena where an earlier holder of the lock cannot write.
    fn move_out(&mut self, held: Word) -> Option<Word> {
        let to = self.quiet(held.arena())?;
        self.file.reserve(arena(to), ARENA_WORDS).ok()?;
        let words = self.file.words();
        let (from, into) = (area(words, held.arena()), area(words, to));
        for at in RINGS_AT..ARENA_WORDS {
            into[at].store(from[at].load(Ordering::Relaxed), Ordering::Relaxed);
        }
        into[HAUNTED_AT].store(0, Ordering::Relaxed);
        flip::copy(from, flip::edition(from), into);
        self.recount = true;
        lock::moved(self.lock(), held, to)
    }

    /// Becomes a member again: this process is a fork, or its lock was lost.
    #[cold]
    fn rejoin(&mut self) {
        if self.forks == forks()
            && let Some(member) = self.member
        {
            self.file.leave(member);
        }
        self.forks = forks();
        self.member = self.file.join().ok();
        self.who = signature();
        (self.fresh, self.recount, self.known) = (true, true, None);
    }

    /// Whether the line of that number is still its own. It is not when something in this process opened the file and
    /// closed it, which lets go of the locks of a process: then it is taken for dead.
    #[inline]
    fn has_line(&self, me: usize) -> bool {
        !self.fresh && self.who != NOBODY && Member::of(self.file.words(), me).who() == self.who
    }

    /// Frees what dead members had.
    fn reclaim(&mut self, books: &mut Books) {
        let words = self.file.words();
        let mut any = false;
        for (number, member) in members::all(words) {
            if member.has_anything() && !self.file.lives(number) {
                member.clear();
                any = true;
            }
        }
        if any {
            members::recount(words, books, self.now);
            self.calls = true;
        }
    }
}

/// A number that no other gate signs with: when, and which process and gate of it. Never [`NOBODY`].
fn signature() -> u64 {
    static GATES: AtomicU64 = AtomicU64::new(0);
    let (gate, process) = (GATES.fetch_add(1, Local::Relaxed), u64::from(std::process::id()));
    crate::clock::host().wrapping_add(process.rotate_left(40)).wrapping_add(gate.rotate_left(52)) | 1
}

/// An arena of the file.
#[inline]
fn area(words: &[AtomicU64], number: usize) -> &[AtomicU64] {
    &words[arena(number)..arena(number) + ARENA_WORDS]
}

impl Store for Shared {
    fn open(&mut self, books: &mut Books, now: Nanos) {
        if self.forks != forks() || self.member.is_none() {
            self.rejoin();
        }
        let Some(me) = self.member else {
            books.broken = Some(FULL);
            return;
        };
        self.now = now;
        let held = self.take(me);
        self.held = Some(held);
        self.arena.store(held.arena(), Local::Relaxed);
        let words = self.file.words();
        let arena = area(words, held.arena());
        self.edition = flip::edition(arena);
        // Debug builds bring everything every time, so that tests of one gate see what several would.
        if cfg!(debug_assertions) || self.known != Some((held.arena(), self.edition)) {
            books.broken = (!books::load(arena, self.edition, books)).then_some(CORRUPTED);
        }
        if books.broken.is_some() {
            return;
        }
        self.rates = books.ledger.edition();
        let line = Member::of(words, me);
        if self.fresh {
            line.write(&self.written, books.turn.own);
            line.sign(self.who);
            words[HIGH_AT].fetch_max(me as u64 + 1, Ordering::AcqRel);
            self.fresh = false;
        } else if !self.has_line(me) {
            lock::release(self.lock(), held);
            self.held = None;
            self.rejoin();
            return self.open(books, now);
        }
        if self.recount {
            books.ledger.recount();
            members::recount(words, books, now);
            self.recount = false;
        }
        let own = u64::from(self.written.waiting > 0);
        books.turn.rivals.clear();
        if books.gates_waiting > own || books.slots >= books.slots_now() {
            if self.file.asks(now) {
                self.reclaim(books);
            }
            if books.gates_waiting > own {
                members::rivals(self.file.words(), me, now, &mut books.turn);
            }
        }
    }

    fn close(&mut self, books: &mut Books, part: &Part) -> bool {
        let (Some(me), Some(held)) = (self.member, self.held.take()) else { return true };
        let words = self.file.words();
        let (waited, waits) = (self.written.waiting > 0, part.waiting > 0);
        if books.broken.is_some() {
            self.known = None;
            return lock::release(self.lock(), held);
        }
        match (waited, waits) {
            (false, true) => books.gates_waiting += 1,
            (true, false) => books.gates_waiting = books.gates_waiting.saturating_sub(1),
            _ => {}
        }
        if books.concurrency != u64::MAX && words[BOUNDED_AT].load(Ordering::Relaxed) == 0 {
            // Until now nobody counted slots; from here on all do, and those before are found on the lines.
            Member::of(words, me).write(part, books.turn.own);
            words[BOUNDED_AT].store(1, Ordering::SeqCst);
            members::recount(words, books, self.now);
        }
        let edition = books::store(area(words, held.arena()), self.edition, books);
        Member::of(words, me).write(part, books.turn.own);
        self.written = *part;
        let other_rates = self.rates != books.ledger.edition();
        let calls = (std::mem::take(&mut self.calls) || other_rates) && books.gates_waiting > u64::from(waits);
        if calls {
            members::call(words, self.now);
        }
        let rung = self.file.bell().load(Local::Relaxed);
        let closed = lock::release(self.lock(), held);
        match (waited, waits) {
            (false, true) => {
                self.file.waiting.fetch_add(1, Local::Release);
                self.file.watch.begin(&self.file, rung);
            }
            (true, false) => drop(self.file.waiting.fetch_sub(1, Local::Relaxed)),
            _ => {}
        }
        if calls {
            watch::ring(self.file.bell());
        }
        self.known = closed.then_some((held.arena(), edition));
        if !closed {
            // Others have moved on, and now know that nobody writes here any more.
            let haunted = &area(words, held.arena())[HAUNTED_AT];
            let _ = haunted.compare_exchange(me as u64 + 1, 0, Ordering::Relaxed, Ordering::Relaxed);
            self.recount = true;
        }
        closed
    }

    fn note(&mut self, part: &Part) -> bool {
        let Some(me) = self.member.filter(|_| self.forks == forks() && !self.fresh) else { return false };
        if !self.has_line(me) {
            return false;
        }
        let words = self.file.words();
        let bounded = &words[BOUNDED_AT];
        let noted = Member::of(words, me).lower(&self.written, part, || bounded.load(Ordering::SeqCst) == 0);
        if noted {
            (self.written.slots, self.written.in_flight) = (part.slots, part.in_flight);
        } else {
            self.recount = true; // others may have counted what was written for a moment
        }
        noted
    }

    fn call(&mut self) {
        self.calls = true;
    }

    fn record(&self, wait: Nanos) {
        waits::record(&self.file.words()[WAITS_AT..WAITS_AT + WAITS_WORDS], wait);
    }

    fn waits(&self) -> Waits {
        waits::read(&self.file.words()[WAITS_AT..WAITS_AT + WAITS_WORDS])
    }

    fn parts(&self) -> Part {
        members::together(self.file.words())
    }

    fn disown(&mut self) {
        (self.held, self.written, self.calls, self.who) = (None, Part::default(), false, NOBODY);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.forks == forks()
            && let Some(member) = self.member
        {
            if self.written.waiting > 0 {
                self.file.waiting.fetch_sub(1, Local::Relaxed);
            }
            // What it leaves on its line is freed as that of a dead process.
            self.file.leave(member);
        }
    }
}
