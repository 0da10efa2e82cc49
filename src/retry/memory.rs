//! Calls that were given up, remembered for layers above that send the same request again.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;

use super::Nanos;

/// A bounded map from the hash of a request to the failure it ended with, each until its own time.
///
/// Retry layers that Penstock cannot see (tenacity, a graph's retry policy) come back with the same request. As long as
/// it is remembered here it is answered with its last failure, and is not sent.
///
/// `T` is what to answer with; the map never looks at it. All methods that drop entries give their `T`s back, so that a
/// caller which keeps the map under a lock can drop them outside of it (dropping a Python exception runs Python).
///
/// The hash is trusted: two requests with the same 64 bits share an entry. Use a hash with a random key per process,
/// over all that makes requests the same; then a false match among 10,000 entries is a 1 in 10^15 event per request.
#[derive(Debug)]
pub struct Memory<T> {
    entries: HashMap<u64, (Nanos, T)>,
    /// The same entries by the time at which they end, so that what is over is found without a search.
    ends: BTreeSet<(Nanos, u64)>,
    capacity: NonZeroUsize,
}

impl<T> Memory<T> {
    /// A memory of at most `capacity` requests. Nothing is allocated before it is used.
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self { entries: HashMap::new(), ends: BTreeSet::new(), capacity }
    }

    /// Remembers a request until `until` (then it is over), in place of what was remembered of it before. Gives back
    /// what was forgotten for it: entries that are over at `now` and, if it is full, the one that would be over first.
    ///
    /// `O(log n)`, plus `O(log n)` for each entry that is dropped, of which each was paid for when it came.
    pub fn remember(&mut self, hash: u64, until: Nanos, payload: T, now: Nanos) -> Vec<T> {
        let mut forgotten = self.purge(now);
        if until <= now {
            forgotten.push(payload);
            return forgotten;
        }
        if let Some((end, old)) = self.entries.insert(hash, (until, payload)) {
            self.ends.remove(&(end, hash));
            forgotten.push(old);
        } else if self.ends.len() >= self.capacity.get() {
            // The new entry is not in `ends` yet, so it is not the one to go: what was just said is remembered.
            if let Some((_, first)) = self.ends.pop_first() {
                forgotten.extend(self.entries.remove(&first).map(|(_, payload)| payload));
            }
        }
        self.ends.insert((until, hash));
        forgotten
    }

    /// What is remembered of a request at `now`, and until when. `O(1)`.
    pub fn recall(&self, hash: u64, now: Nanos) -> Option<(Nanos, &T)> {
        self.entries.get(&hash).filter(|(until, _)| now < *until).map(|(until, payload)| (*until, payload))
    }

    /// Forgets a request, and gives back what was remembered of it. `O(log n)`; `O(1)` if that is nothing.
    pub fn forget(&mut self, hash: u64) -> Option<T> {
        let (until, payload) = self.entries.remove(&hash)?;
        self.ends.remove(&(until, hash));
        Some(payload)
    }

    /// Forgets all that is over at `now`, and gives it back. `O(1)` if nothing is, else `O(log n)` for each.
    pub fn purge(&mut self, now: Nanos) -> Vec<T> {
        let mut forgotten = Vec::new();
        while let Some(&(until, hash)) = self.ends.first()
            && until <= now
        {
            self.ends.pop_first();
            forgotten.extend(self.entries.remove(&hash).map(|(_, payload)| payload));
        }
        forgotten
    }

    /// How many requests it holds; some may be over.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(capacity: usize) -> Memory<&'static str> {
        Memory::new(NonZeroUsize::new(capacity).unwrap())
    }

    #[test]
    fn a_failure_is_remembered_until_its_time() {
        let mut memory = memory(4);
        assert!(memory.remember(1, 100, "refused", 0).is_empty());
        assert_eq!(memory.recall(1, 0), Some((100, &"refused")));
        assert_eq!(memory.recall(1, 99), Some((100, &"refused")));
        assert_eq!(memory.recall(1, 100), None);
        assert_eq!(memory.recall(2, 0), None);
        assert_eq!(memory.purge(100), ["refused"]);
        assert!(memory.is_empty());
    }

    #[test]
    fn the_latest_failure_of_a_request_counts() {
        let mut memory = memory(4);
        memory.remember(1, 100, "first", 0);
        assert_eq!(memory.remember(1, 50, "second", 0), ["first"]);
        assert_eq!(memory.recall(1, 49), Some((50, &"second")));
        assert_eq!(memory.recall(1, 50), None);
        assert_eq!(memory.len(), 1);
    }

    #[test]
    fn what_is_over_goes_first_then_what_is_over_soonest() {
        let mut memory = memory(2);
        memory.remember(1, 10, "a", 0);
        memory.remember(2, 30, "b", 0);
        assert_eq!(memory.remember(3, 20, "c", 10), ["a"]);
        assert_eq!(memory.remember(4, 15, "d", 10), ["c"]);
        assert_eq!(memory.recall(4, 10), Some((15, &"d")));
        assert_eq!(memory.recall(2, 10), Some((30, &"b")));
        assert_eq!(memory.len(), 2);
    }

    #[test]
    fn what_is_forgotten_is_gone() {
        let mut memory = memory(1);
        memory.remember(1, 10, "a", 0);
        assert_eq!(memory.forget(1), Some("a"));
        assert_eq!(memory.forget(1), None);
        assert_eq!(memory.recall(1, 0), None);
        assert!(memory.remember(2, 10, "b", 0).is_empty());
        assert_eq!(memory.recall(2, 0), Some((10, &"b")));
    }

    #[test]
    fn what_is_over_at_once_is_not_kept() {
        let mut memory = memory(1);
        memory.remember(1, 10, "a", 0);
        assert_eq!(memory.remember(2, 5, "late", 5), ["late"]);
        assert_eq!(memory.recall(1, 5), Some((10, &"a")));
    }
}
