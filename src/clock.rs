//! Time, as the core sees it: nanoseconds since an origin that never moves.
//!
//! No decision of the core reads a clock: each takes `now`. This module is for those who call it. The process has one
//! monotonic clock; a test may put a virtual one in its place, and the time it adds stays added when the test ends, so
//! that no limiter ever sees time go backwards.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// Nanoseconds since the origin of the process's clock. 64 bits hold 584 years.
pub type Nanos = u64;

/// One second.
pub const SECOND: Nanos = 1_000_000_000;

/// The origin lies a day before the first reading, so that a time "one window ago" always exists.
const HEAD_START: Nanos = 86_400 * SECOND;

static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
static FROZEN: AtomicBool = AtomicBool::new(false);
/// While frozen: the time itself. Otherwise: what virtual time has added to real time.
static SHIFT: AtomicU64 = AtomicU64::new(HEAD_START);

fn real() -> Nanos {
    let elapsed = ORIGIN.elapsed();
    // 584 years pass before this is too much.
    elapsed.as_secs().saturating_mul(SECOND).saturating_add(u64::from(elapsed.subsec_nanos()))
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
