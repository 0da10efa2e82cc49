//! How long calls of all members waited: counters that anyone adds to at any time, without the lock.
//!
//! The first two words are the total (in microseconds) and the longest wait (in nanoseconds). Then come counters for
//! waits of 1 to 2^63 microseconds, 32 to each doubling: 3 % apart.

use super::atomic::{AtomicU64, Ordering};
use crate::clock::Nanos;
use crate::stats::Waits;

const FINE: u32 = 5;
const FIRST: usize = 2;

/// Which counter is for that wait.
fn place(micros: u64) -> usize {
    let doubling = micros.checked_ilog2().unwrap_or(0).saturating_sub(FINE);
    let steps = micros >> doubling; // below 64; from 32 on but for the shortest
    usize::try_from(u64::from(doubling) * (1 << FINE) + steps).unwrap_or(0)
}

/// The wait that a counter is for.
fn wait(place: usize) -> u64 {
    let place = place as u64;
    let doubling = (place >> FINE).saturating_sub(1);
    (place - (doubling << FINE)) << doubling
}

/// Counts a wait.
pub fn record(words: &[AtomicU64], wait: Nanos) {
    let micros = wait / 1_000;
    words[0].fetch_add(micros, Ordering::Relaxed);
    words[1].fetch_max(wait, Ordering::Relaxed);
    if let Some(counter) = words.get(FIRST + place(micros)) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// All waits so far.
pub fn read(words: &[AtomicU64]) -> Waits {
    let counters = words[FIRST..].iter().map(|counter| counter.load(Ordering::Relaxed)).enumerate();
    let kinds = counters.filter(|&(_, count)| count > 0).map(|(place, count)| (wait(place).max(1), count));
    let total = u128::from(words[0].load(Ordering::Relaxed)) * 1_000;
    Waits::counted(total, words[1].load(Ordering::Relaxed), kinds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_for_waits_three_percent_apart() {
        for micros in (0..2_000).chain((1..60).map(|doubling| (1 << doubling) + 12_345)) {
            let counted = wait(place(micros));
            assert!(counted <= micros && micros - counted <= micros / 32, "{micros} counted as {counted}");
        }
        assert!(FIRST + place(u64::MAX) < super::super::layout::WAITS_WORDS);
        let words: Vec<AtomicU64> = (0..super::super::layout::WAITS_WORDS).map(|_| AtomicU64::new(0)).collect();
        for second in 1..=100 {
            record(&words, second * crate::clock::SECOND);
        }
        let waits = read(&words);
        let median = waits.quantile(0.5, 100) / crate::clock::SECOND;
        assert!((48..=52).contains(&median), "{median}");
        assert_eq!((waits.len(), waits.max()), (100, 100 * crate::clock::SECOND));
    }
}
