//! Counters of a limiter, and how long calls waited.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::clock::Nanos;
use crate::cost::Cost;

/// How many of a limiter's calls ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Permits given.
    pub granted: u64,
    /// Calls that were given up before their permit was used: while waiting, or granted and not yet resumed.
    pub cancelled: u64,
    /// Permits that were given back before they were used.
    pub abandoned: u64,
    /// Calls that ran into their timeout, at once or later.
    pub timeouts: u64,
    /// Calls that could never be admitted, or that found the queue full.
    pub refused: u64,
}

/// How long calls waited that had to, in microseconds up to a week, to two digits. Calls that left at once are counted
/// but not recorded, so that they cost nothing.
#[derive(Clone, Debug)]
pub struct Waits {
    histogram: Option<Histogram<u64>>,
    total: u128,
    max: Nanos,
}

const WEEK_IN_MICROS: u64 = 7 * 86_400 * 1_000_000;

impl Default for Waits {
    fn default() -> Self {
        Self { histogram: Histogram::new_with_bounds(1, WEEK_IN_MICROS, 2).ok(), total: 0, max: 0 }
    }
}

impl Waits {
    /// Takes a wait in.
    pub fn record(&mut self, wait: Nanos) {
        self.total = self.total.saturating_add(u128::from(wait));
        self.max = self.max.max(wait);
        if let Some(histogram) = &mut self.histogram {
            histogram.saturating_record(wait / 1_000);
        }
    }

    /// Waits that were counted elsewhere: of each kind how long, in microseconds, and how many.
    pub(crate) fn counted(total: u128, max: Nanos, kinds: impl Iterator<Item = (u64, u64)>) -> Self {
        let mut waits = Self { total, max, ..Self::default() };
        if let Some(histogram) = &mut waits.histogram {
            for (micros, count) in kinds {
                histogram.saturating_record_n(micros, count);
            }
        }
        waits
    }

    /// All waiting together, in nanoseconds.
    pub fn total(&self) -> u128 {
        self.total
    }

    /// The longest wait, in nanoseconds.
    pub fn max(&self) -> Nanos {
        self.max
    }

    /// How many calls had to wait.
    pub fn len(&self) -> u64 {
        self.histogram.as_ref().map_or(0, Histogram::len)
    }

    /// Whether nobody had to wait.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The wait, in nanoseconds, that this share (0 to 1) of `granted` calls did not exceed. Those that left at once
    /// waited for 0.
    pub fn quantile(&self, share: f64, granted: u64) -> Nanos {
        let Some(histogram) = &self.histogram else { return 0 };
        let at_once = granted.saturating_sub(histogram.len());
        if granted == 0 || histogram.is_empty() {
            return 0;
        }
        #[allow(clippy::cast_precision_loss)] // a rank among less than 2^53 calls
        let (rank, at_once, waited) = (share.clamp(0.0, 1.0) * granted as f64, at_once as f64, histogram.len() as f64);
        if rank <= at_once {
            return 0;
        }
        histogram.value_at_quantile((rank - at_once) / waited).saturating_mul(1_000).min(self.max)
    }
}

/// How many labels are kept apart. What is labelled beyond that is counted under [`REST`].
const MOST_LABELS: usize = 1_000;
/// The label of whatever has one too many.
pub const REST: &str = "...";

/// What the calls of one label came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Calls that are over.
    pub attempts: u64,
    /// What they were charged, as settled.
    pub cost: Cost,
    /// How long they waited together, in nanoseconds.
    pub waited: Nanos,
    /// How long the one that waited longest did.
    pub waited_max: Nanos,
}

/// The numbers of calls by label, besides those of all.
#[derive(Clone, Debug, Default)]
pub struct Labels(BTreeMap<String, Share>);

impl Labels {
    fn share(&mut self, label: &str) -> &mut Share {
        let label = if self.0.len() < MOST_LABELS || self.0.contains_key(label) { label } else { REST };
        self.0.entry(label.to_owned()).or_default()
    }

    /// A call of that label is over, which was charged that and waited so long.
    pub fn add(&mut self, label: &str, cost: &Cost, waited: Nanos) {
        let share = self.share(label);
        share.attempts += 1;
        share.cost = share.cost.plus(*cost);
        share.waited = share.waited.saturating_add(waited);
        share.waited_max = share.waited_max.max(waited);
    }

    /// All labels and their numbers, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Share)> {
        self.0.iter().map(|(label, share)| (label.as_str(), share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND;

    #[test]
    fn labels_are_counted_apart_and_their_number_is_bounded() {
        let mut labels = Labels::default();
        let cost = Cost { requests: 1, tokens: 10, ..Cost::default() };
        for wait in 1..=3 {
            labels.add("ingest", &cost, wait);
        }
        labels.add("query", &Cost::default(), 0);
        let cost = Cost { requests: 3, tokens: 30, ..Cost::default() };
        let ingest = Share { attempts: 3, cost, waited: 6, waited_max: 3 };
        let query = Share { attempts: 1, ..Share::default() };
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("ingest", &ingest), ("query", &query)]);
        for label in 0..5_000 {
            labels.add(&label.to_string(), &cost, 1);
        }
        assert_eq!(labels.iter().count(), MOST_LABELS + 1);
        let rest = labels.iter().find(|(label, _)| *label == REST).map(|(_, share)| share.attempts);
        assert_eq!(rest, Some(5_002 - 1_000));
        labels.add("ingest", &cost, 1);
        assert_eq!(labels.iter().find(|(label, _)| *label == "ingest").map(|(_, share)| share.attempts), Some(4));
    }

    #[test]
    fn quantiles_count_those_who_left_at_once() {
        let mut waits = Waits::default();
        assert_eq!(waits.quantile(0.5, 0), 0);
        for seconds in 1..=50 {
            waits.record(seconds * SECOND);
        }
        assert_eq!(waits.quantile(0.5, 100), 0);
        let p99 = waits.quantile(0.99, 100);
        assert!((48 * SECOND..=50 * SECOND).contains(&p99), "{p99}");
        assert_eq!(waits.quantile(1.0, 100), 50 * SECOND);
        assert_eq!((waits.len(), waits.total(), waits.max()), (50, 1_275 * u128::from(SECOND), 50 * SECOND));
        waits.record(u64::MAX);
    }
}
