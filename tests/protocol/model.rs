//! The books are two words here, which every decision raises by one. They are torn if they differ; a decision is lost if
//! they are lower than the decisions that were made.

use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::AtomicBool;
use loom::thread;

use super::atomic::{AtomicU64, Ordering};
use super::flip;
use super::layout::{ARENA_WORDS, HAUNTED_AT};
use super::lock::{self, Word};

/// What a protocol may get wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A decision is written over the copy that holds.
    WritesWhatHolds,
    /// A decision is written and does not come to hold.
    NeverFlips,
    /// Whoever takes the lock from one that lives goes on where that one may still write.
    StaysWithTheHaunted,
    /// Whoever stood still takes what it wrote for what holds.
    NeverAsksWhetherItHeld,
}

/// How often what a model is about came to pass, over all orders.
type Times = std::sync::Arc<std::sync::atomic::AtomicUsize>;

/// Tries every order with few switches at times when nobody waits. Gives how often it came to what the model is about.
fn check(model: impl Fn(&Times) + Sync + Send + 'static) -> usize {
    let mut builder = Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    let times = Times::default();
    let counted = Times::clone(&times);
    builder.check(move || model(&counted));
    times.load(std::sync::atomic::Ordering::Relaxed)
}

fn count(times: &Times) {
    times.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}

struct File {
    lock: AtomicU64,
    arenas: [Vec<AtomicU64>; 2],
    /// Whether the first member is dead; what the operating system knows.
    dead: AtomicBool,
    fault: Option<Fault>,
}

impl File {
    fn new(fault: Option<Fault>) -> Arc<Self> {
        let arena = || (0..ARENA_WORDS).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { lock: AtomicU64::new(0), arenas: [arena(), arena()], dead: AtomicBool::new(false), fault })
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// What the lock says. Loom knows of one access before each, and so of none between another's read and what comes
    /// after one's own; it does know of a write before that. Without this, nobody ever found the lock taken here.
    fn read(&self) -> Word {
        self.lock.fetch_or(0, Ordering::Relaxed);
        lock::read(&self.lock)
    }

    fn take(&self, me: usize) -> Word {
        loop {
            let seen = self.read();
            match seen.owner() {
                None => {
                    if let Some(held) = lock::take(&self.lock, seen, me) {
                        return held;
                    }
                }
                // What the system knows, everyone does at once: it is no part of the protocol.
                Some(owner) if owner != me && self.dead.load(loom::sync::atomic::Ordering::Acquire) => {
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

    /// One decision; it ends before the given step, as that of a process which dies there. Gives whether it holds.
    fn decide(&self, held: Word, steps: usize) -> bool {
        let (edition, count) = self.look(held);
        let arena = &self.arenas[held.arena()];
        let raise = |copy: &[AtomicU64], words: usize| {
            copy[..words].iter().for_each(|word| word.store(count + 1, Ordering::Relaxed));
        };
        if self.has(Fault::WritesWhatHolds) {
            raise(flip::copy_of(arena, edition), steps.min(2));
        }
        if steps < 3 || self.has(Fault::NeverFlips) {
            raise(flip::copy_of(arena, edition + 1), steps.min(2));
        } else {
            flip::turn_over(arena, edition, |copy| raise(copy, 2));
        }
        steps > 3 && (lock::release(&self.lock, held) || self.has(Fault::NeverAsksWhetherItHeld))
    }

    /// What holds in the end.
    fn count(&self) -> u64 {
        self.look(lock::read(&self.lock)).1
    }
}

/// Two members decide. Gives how often.
pub fn two_live(fault: Option<Fault>) -> usize {
    check(move |times| {
        let file = File::new(fault);
        let other = Arc::clone(&file);
        let thread = thread::spawn(move || assert!(other.decide(other.take(0), 4)));
        assert!(file.decide(file.take(1), 4));
        thread.join().unwrap();
        assert_eq!(file.count(), 2, "a decision is lost");
        count(times);
    })
}

/// One decides twice, and another dies after so many steps of its decision. Gives how often the lock was taken from it.
pub fn one_dies(steps: usize, fault: Option<Fault>) -> usize {
    check(move |times| {
        let file = File::new(fault);
        let other = Arc::clone(&file);
        let thread = thread::spawn(move || {
            other.decide(other.take(0), steps);
            other.dead.store(true, loom::sync::atomic::Ordering::Release);
        });
        for _ in 0..2 {
            let held = file.take(1);
            if file.dead.load(loom::sync::atomic::Ordering::Relaxed) {
                count(times);
            }
            assert!(file.decide(held, 4));
        }
        thread.join().unwrap();
        let held = u64::from(steps == 3); // it died after its decision held
        assert_eq!(file.count(), 2 + held);
    })
}

/// One takes the lock from another wherever that stands, and that one goes on later. Gives how often it did.
pub fn one_stands_still(fault: Option<Fault>) -> usize {
    check(move |times| {
        let file = File::new(fault);
        let other = Arc::clone(&file);
        let thread = thread::spawn(move || {
            // It charges anew if others went on without it.
            while !other.decide(other.take(0), 4) {}
        });
        let seen = file.read();
        // Whenever this happens, the other stands wherever it stands.
        if seen.owner().is_some()
            && let Some(held) = lock::seize(&file.lock, seen, 1)
        {
            count(times);
            let held = if file.has(Fault::StaysWithTheHaunted) { held } else { file.move_out(held) };
            assert!(file.decide(held, 4));
        } else {
            assert!(file.decide(file.take(1), 4));
        }
        assert!(file.decide(file.take(1), 4));
        thread.join().unwrap();
        let count = file.count();
        assert!((3..=4).contains(&count), "{count}"); // at the worst something is charged twice
    })
}

impl File {
    fn move_out(&self, held: Word) -> Word {
        self.arenas[0][HAUNTED_AT].store(1, Ordering::Relaxed);
        let from = &self.arenas[held.arena()];
        flip::copy(from, flip::edition(from), &self.arenas[1]);
        lock::moved(&self.lock, held, 1).expect("the lock is ours")
    }
}
