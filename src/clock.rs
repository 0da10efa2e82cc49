//! Time, as the core sees it: nanoseconds since an origin that never moves.
//!
//! No decision of the core reads a clock: each takes `now`. This module is for those who call it. All processes of a host
//! read the same monotonic clock; a test may put a virtual one in its place, and the time it adds stays added when the test
//! ends, so that no limiter ever sees time go backwards.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Nanoseconds since the origin of the process's clock. 64 bits hold 584 years.
pub type Nanos = u64;

/// One second.
pub const SECOND: Nanos = 1_000_000_000;

/// Times begin a day before the host's clock does, so that a time "one window ago" always exists.
const HEAD_START: Nanos = 86_400 * SECOND;

static FROZEN: AtomicBool = AtomicBool::new(false);
/// While frozen: the time itself. Otherwise: what virtual time has added to real time.
static SHIFT: AtomicU64 = AtomicU64::new(HEAD_START);
/// The process in which the clock was first virtual, which its forks have this time from; 0 if it never was.
static VIRTUAL: AtomicU64 = AtomicU64::new(0);

/// The host's monotonic clock, which all of its processes share: it also runs while the machine sleeps, as the
/// provider's does.
#[cfg(unix)]
pub(crate) fn host() -> Nanos {
    use rustix::time::{ClockId, clock_gettime};
    #[cfg(target_os = "linux")]
    let clock = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = ClockId::Monotonic;
    let time = clock_gettime(clock);
    let (seconds, part) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    seconds.saturating_mul(SECOND).saturating_add(part)
}

/// A monotonic clock of this process.
#[cfg(not(unix))]
pub(crate) fn host() -> Nanos {
    static ORIGIN: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    // 584 years pass before this truncates.
    u64::try_from(ORIGIN.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn real() -> Nanos {
    host()
}

/// Whose clock this is: 0 is the host's; any other number is of a process whose time was virtual once, and of its forks.
pub fn whose() -> u64 {
    VIRTUAL.load(Ordering::Relaxed)
}

/// The process's monotonic time; virtual while [`freeze`] holds.
#[inline]
pub fn now() -> Nanos {
    if FROZEN.load(Ordering::Relaxed) {
        SHIFT.load(Ordering::Relaxed)
    } else {
        SHIFT.load(Ordering::Relaxed).saturating_add(real())
    }
}

/// Stops the clock where it is: from here on only [`advance`] moves it. For tests; not meant to race with other
/// threads' decisions.
pub fn freeze() {
    if !FROZEN.load(Ordering::Relaxed) {
        SHIFT.store(now(), Ordering::Relaxed);
        let me = u64::from(std::process::id());
        let _ = VIRTUAL.compare_exchange(0, me, Ordering::Relaxed, Ordering::Relaxed);
        FROZEN.store(true, Ordering::Relaxed);
    }
}

/// Moves a frozen clock forward; without effect on a running one.
pub fn advance(by: Nanos) {
    if FROZEN.load(Ordering::Relaxed) {
        let _ = SHIFT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |t| Some(t.saturating_add(by)));
    }
}

/// Lets the clock run again, from where it stands.
pub fn thaw() {
    if FROZEN.load(Ordering::Relaxed) {
        SHIFT.store(SHIFT.load(Ordering::Relaxed).saturating_sub(real()), Ordering::Relaxed);
        FROZEN.store(false, Ordering::Relaxed);
    }
}

/// Whether the clock stands still.
pub fn frozen() -> bool {
    FROZEN.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thawed_clock_goes_on_from_where_it_stood() {
        let before = now();
        freeze();
        let stood = now();
        assert!(stood >= before);
        advance(3_600 * SECOND);
        assert_eq!(now(), stood + 3_600 * SECOND);
        freeze(); // again is harmless
        thaw();
        assert!(now() >= stood + 3_600 * SECOND);
        assert!(!frozen());
        let later = now();
        advance(SECOND); // without effect on a running clock
        assert!(now() < later + SECOND);
    }
}
