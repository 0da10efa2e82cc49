//! A thread of this process that sleeps until another process rings, while calls of this one wait.
//!
//! It is outside of the interpreter and stays there: what it hears it writes into a pipe, and who reads from that is not
//! its affair. So it may be anywhere when the interpreter exits, or when the process forks: the child has none of it and
//! begins anew.

use std::io::{self, PipeReader, PipeWriter, Write};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use super::file::{ASK_AGAIN, Mapped, forks};
use super::members;

/// How long it lets others ring on before it listens again: so often at the most this process looks.
const PAUSE: Duration = Duration::from_millis(1);

/// What the thread of one file knows.
#[derive(Debug, Default)]
pub struct Watch {
    /// Whether there is a thread.
    runs: AtomicBool,
    /// How often calls began to wait where none did: the thread sleeps on this while none do.
    began: AtomicU32,
    /// The ring that it heard last.
    heard: AtomicU32,
}

/// What the threads of this process write into.
struct Line {
    reader: PipeReader,
    writer: PipeWriter,
    forks: u32,
    pending: AtomicBool,
}

impl Line {
    fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self { reader, writer, forks: forks(), pending: AtomicBool::new(false) })
    }
}

/// One for each generation of forks, the newest of which counts. A child that forks again and again is rare.
static LINES: [OnceLock<Line>; 16] = [const { OnceLock::new() }; 16];

fn line() -> io::Result<&'static Line> {
    for place in &LINES {
        if let Some(line) = place.get() {
            if line.forks == forks() {
                return Ok(line);
            }
            continue;
        }
        let line = Line::new()?;
        return Ok(place.get_or_init(|| line));
    }
    Err(io::Error::other("a process that is a fork of a fork, sixteen times over, cannot wait for others"))
}

/// Where it can be read that calls of this process are to look whether they may leave.
///
/// # Errors
/// When the system gives no pipe.
pub fn reader() -> io::Result<&'static PipeReader> {
    line().map(|line| &line.reader)
}

/// Whoever reads it has read it, and looks now: what comes from here on is written again.
pub fn heard() {
    if let Ok(line) = line() {
        line.pending.store(false, Ordering::SeqCst);
    }
}

fn tell() {
    if let Ok(line) = line()
        && !line.pending.swap(true, Ordering::SeqCst)
    {
        let _ = (&line.writer).write(&[1]);
    }
}

impl Watch {
    /// Calls wait where none did; `rung` is how often it had rung when they looked last.
    pub fn begin(&self, file: &Arc<Mapped>, rung: u32) {
        if !self.runs.load(Ordering::Relaxed) {
            self.heard.store(rung, Ordering::Relaxed);
        }
        self.look();
        if !self.runs.swap(true, Ordering::SeqCst) {
            let (file, forks) = (Arc::downgrade(file), forks());
            let thread = std::thread::Builder::new().name("penstock-watch".to_owned()).stack_size(128 << 10);
            if thread.spawn(move || run(&file, forks)).is_err() {
                self.runs.store(false, Ordering::Relaxed); // the next that waits tries again
            }
        }
    }

    /// Whether there is a thread, which may come back to the file.
    pub fn runs(&self) -> bool {
        self.runs.load(Ordering::SeqCst)
    }

    /// The thread is to look whether it is needed.
    pub fn look(&self) {
        self.began.fetch_add(1, Ordering::Release);
        wake(&self.began, false);
    }

    /// The thread is the parent's.
    pub fn disown(&self) {
        self.runs.store(false, Ordering::Relaxed);
    }
}

fn run(file: &Weak<Mapped>, generation: u32) {
    while let Some(mapped) = file.upgrade() {
        if generation != forks() {
            return;
        }
        let watch = &mapped.watch;
        let began = watch.began.load(Ordering::Acquire);
        if mapped.waiting.load(Ordering::Acquire) == 0 {
            if !mapped.has_members() {
                watch.runs.store(false, Ordering::SeqCst);
                // Who has come meanwhile took this thread to be there; who comes from here on begins another.
                if !mapped.has_members() || watch.runs.swap(true, Ordering::SeqCst) {
                    return;
                }
                continue;
            }
            sleep_on(&watch.began, began, Duration::from_secs(60), false);
            continue;
        }
        let heard = watch.heard.load(Ordering::Relaxed);
        sleep_on(mapped.bell(), heard, Duration::from_nanos(ASK_AGAIN), true);
        let rung = mapped.bell().load(Ordering::Acquire);
        watch.heard.store(rung, Ordering::Relaxed);
        if rung != heard || someone_died(&mapped) {
            tell();
            std::thread::sleep(PAUSE);
        }
    }
}

/// Whether a member holds what it will never give back.
fn someone_died(file: &Mapped) -> bool {
    members::all(file.words()).any(|(number, member)| member.has_anything() && !file.lives(number))
}

/// Rings for the threads of all processes.
pub fn ring(bell: &AtomicU32) {
    bell.fetch_add(1, Ordering::Release);
    wake(bell, true);
}

#[cfg(target_os = "linux")]
fn flags(shared: bool) -> rustix::thread::futex::Flags {
    if shared { rustix::thread::futex::Flags::empty() } else { rustix::thread::futex::Flags::PRIVATE }
}

#[cfg(target_os = "linux")]
fn wake(word: &AtomicU32, shared: bool) {
    let _ = rustix::thread::futex::wake(word, flags(shared), u32::MAX >> 1);
}

#[cfg(target_os = "linux")]
fn sleep_on(word: &AtomicU32, seen: u32, most: Duration, shared: bool) {
    if let Ok(most) = most.try_into() {
        let _ = rustix::thread::futex::wait(word, flags(shared), seen, Some(&most));
    }
}

/// Without a futex nobody is woken: who listens looks now and then.
#[cfg(not(target_os = "linux"))]
fn wake(_: &AtomicU32, _: bool) {}

/// Looks often at first, and less often the longer nothing comes.
#[cfg(not(target_os = "linux"))]
fn sleep_on(word: &AtomicU32, seen: u32, most: Duration, _: bool) {
    let (since, mut nap) = (std::time::Instant::now(), Duration::from_micros(200));
    while word.load(Ordering::Acquire) == seen && since.elapsed() < most {
        std::thread::sleep(nap);
        nap = (nap * 2).min(Duration::from_millis(5));
    }
}
