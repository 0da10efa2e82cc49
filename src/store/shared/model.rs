//! The protocol in a model that tries every order of every access that the machine allows (loom), with processes that
//! die, or that stand still, at any step. `scripts/loom` runs it.
//!
//! The books are two words here, which every decision raises by one. They are torn if they differ; a decision is lost if
//! they are lower than the decisions that were made.

use loom::sync::Arc;
use loom::sync::atomic::AtomicBool;
use loom::thread;

use super::atomic::{AtomicU64, Ordering};
use super::flip;
use super::layout::{BOOKS_AT, BOOKS_WORDS, HAUNTED_AT};
use super::lock::{self, Word};

const ARENA: usize = BOOKS_AT + 2 * BOOKS_WORDS;

struct File {
    lock: AtomicU64,
    arenas: [Vec<AtomicU64>; 2],
    /// Whether the first member is dead; what the operating system knows.
    dead: AtomicBool,
}

impl File {
    fn new() -> Arc<Self> {
        let arena = || (0..ARENA).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { lock: AtomicU64::new(0), arenas: [arena(), arena()], dead: AtomicBool::new(false) })
    }

    fn take(&self, me: usize) -> Word {
        loop {
            let seen = lock::read(&self.lock);
            match seen.owner() {
                None => {
                    if let Some(held) = lock::take(&self.lock, seen, me) {
                        return held;
                    }
                }
                Some(owner) if owner != me && self.dead.load(Ordering::Acquire) => {
                    if let Some(held) = lock::take(&self.lock, seen, me) {
                        let arena = &self.arenas[held.arena()];
                        flip::distrust(arena, flip::edition(arena));
                        return held;
                    }
                }
                Some(_) => {}
            }
            thread::yield_now();
        }
    }

    /// What is there, which is whole.
    fn look(&self, held: Word) -> (u64, u64) {
        let arena = &self.arenas[held.arena()];
        let edition = flip::edition(arena);
        let copy = flip::copy_of(arena, edition);
        let (one, two) = (copy[0].load(Ordering::Relaxed), copy[1].load(Ordering::Relaxed));
        assert_eq!(one, two, "the books are torn");
        (edition, one)
    }

    /// One decision; it ends before the given step, as that of a process which dies there.
    fn decide(&self, held: Word, steps: usize) -> bool {
        let (edition, count) = self.look(held);
        let arena = &self.arenas[held.arena()];
        let spare = flip::copy_of(arena, edition + 1);
        match steps {
            0 => return false,
            1 => {
                spare[0].store(count + 1, Ordering::Relaxed);
                return false;
            }
            2 => {
                spare[0].store(count + 1, Ordering::Relaxed);
                spare[1].store(count + 1, Ordering::Relaxed);
                return false;
            }
            _ => {}
        }
        flip::turn_over(arena, edition, |copy| {
            copy[0].store(count + 1, Ordering::Relaxed);
            copy[1].store(count + 1, Ordering::Relaxed);
        });
        steps > 3 && lock::release(&self.lock, held)
    }

    fn count(&self) -> u64 {
        self.look(lock::read(&self.lock)).1
    }
}

#[test]
fn two_that_live_lose_nothing() {
    loom::model(|| {
        let file = File::new();
        let other = Arc::clone(&file);
        let thread = thread::spawn(move || assert!(other.decide(other.take(0), 4)));
        assert!(file.decide(file.take(1), 4));
        thread.join().unwrap();
        assert_eq!(file.count(), 2);
    });
}

#[test]
fn one_that_dies_at_any_step_leaves_what_holds() {
    for steps in 0..4 {
        loom::model(move || {
            let file = File::new();
            let other = Arc::clone(&file);
            let thread = thread::spawn(move || {
                other.decide(other.take(0), steps);
                other.dead.store(true, Ordering::Release);
            });
            assert!(file.decide(file.take(1), 4));
            assert!(file.decide(file.take(1), 4));
            thread.join().unwrap();
            let held = u64::from(steps == 3); // it died after its decision held
            let count = file.count();
            assert_eq!(count, 2 + held);
        });
    }
}

#[test]
fn one_that_stands_still_at_any_step_harms_nobody_when_it_goes_on() {
    loom::model(|| {
        let file = File::new();
        let other = Arc::clone(&file);
        let thread = thread::spawn(move || {
            // It charges anew if others went on without it.
            while !other.decide(other.take(0), 4) {}
        });
        let seen = lock::read(&file.lock);
        // Whenever this happens, the other stands wherever it stands.
        if seen.owner().is_some()
            && let Some(held) = lock::seize(&file.lock, seen, 1)
        {
            file.arenas[0][HAUNTED_AT].store(1, Ordering::Relaxed);
            let from = &file.arenas[held.arena()];
            flip::copy(from, flip::edition(from), &file.arenas[1]);
            let moved = lock::moved(&file.lock, held, 1).expect("the lock is ours");
            assert!(file.decide(moved, 4));
        } else {
            assert!(file.decide(file.take(1), 4));
        }
        thread.join().unwrap();
        let count = file.count();
        assert!((2..=3).contains(&count), "{count}"); // at the worst something is charged twice
    });
}
