//! The rolling-window guard of one rate: in any window of the span no more than the amount leaves.
//!
//! What a server counts in any window W left the client within some window W + J, where J is the spread of the delay
//! between leaving here and being counted there. So a guard over W + J gives no refusal against a server that counts
//! by token bucket, fixed window or rolling window (shown in `docs/enforcers.md`).
//!
//! Charges that lie close together share a slice, and a slice is forgotten only when the *last* of its charges has left
//! the window: rounding is always to the safe side. Slices begin at least 1/2,048 of the span apart, so memory is
//! bounded whatever the load, and at most 0.05 % of the amount is lost to the rounding; few charges are kept exactly.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::clock::Nanos;
use crate::rate::Rate;
use crate::words::Carrier;

/// How many slices a span has at the most.
const SLICES: Nanos = 2_048;

/// Charges that lie close together, and that no other joins any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slice {
    /// When the last of them left.
    pub(crate) last: Nanos,
    /// What they were charged between them.
    pub(crate) amount: u64,
}

/// Places for slices that are kept elsewhere than in the window, by their number: a place is used again when the slice
/// in it, [`PLACES`] earlier, is forgotten.
pub(crate) trait Ring: fmt::Debug + Send + Sync {
    /// The slice of that number.
    fn get(&self, number: u64) -> Slice;
    /// Puts the slice of that number into its place.
    fn set(&self, number: u64, slice: Slice);
}

/// How many places a [`Ring`] has: twice what a window of one rate needs, so that rates may change.
pub(crate) const PLACES: u64 = 4_096;

/// The slices of a window but for the newest, in their order.
#[derive(Clone, Debug)]
enum Slices {
    Own(VecDeque<Slice>),
    Elsewhere {
        ring: Arc<dyn Ring>,
        /// The number of the oldest.
        first: u64,
        /// The number that the next one gets.
        end: u64,
        /// The oldest that others may still look at: its place is not used again.
        kept: u64,
    },
}

impl Slices {
    #[inline]
    fn len(&self) -> usize {
        match self {
            Self::Own(slices) => slices.len(),
            Self::Elsewhere { first, end, .. } => usize::try_from(end - first).unwrap_or(0),
        }
    }

    #[inline]
    fn get(&self, index: usize) -> Option<Slice> {
        match self {
            Self::Own(slices) => slices.get(index).copied(),
            Self::Elsewhere { ring, first, end, .. } => {
                let number = first + index as u64;
                (number < *end).then(|| ring.get(number))
            }
        }
    }

    fn set(&mut self, index: usize, slice: Slice) {
        match self {
            Self::Own(slices) => {
                if let Some(place) = slices.get_mut(index) {
                    *place = slice;
                }
            }
            Self::Elsewhere { ring, first, .. } => ring.set(*first + index as u64, slice),
        }
    }

    #[inline]
    fn pop(&mut self) {
        match self {
            Self::Own(slices) => drop(slices.pop_front()),
            Self::Elsewhere { first, end, .. } => *first = (*first + 1).min(*end),
        }
    }

    /// Takes one in, at the end; gives it back if there is no place.
    #[inline]
    fn push(&mut self, slice: Slice) -> Option<Slice> {
        match self {
            Self::Own(slices) => slices.push_back(slice),
            Self::Elsewhere { ring, end, kept, .. } => {
                if *end - *kept >= PLACES {
                    return Some(slice);
                }
                ring.set(*end, slice);
                *end += 1;
            }
        }
        None
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = Slice> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// The first that does not end before `at`.
    fn since(&self, at: Nanos) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.get(middle).is_some_and(|slice| slice.last < at) { low = middle + 1 } else { high = middle }
        }
        low
    }
}

/// What left in the last `span`, and whether more may.
#[derive(Clone, Debug)]
pub struct Window {
    amount: u64,
    span: Nanos,
    slice: Nanos,
    used: u64,
    slices: Slices,
    /// The newest slice, which charges still join; nothing is in it if its amount is 0.
    newest: Slice,
    /// When the newest slice began.
    began: Nanos,
    /// Charges before this time may be forgotten.
    forgotten: Nanos,
}

impl Window {
    /// An empty window of the rate's period plus `jitter`.
    pub fn new(rate: &Rate, jitter: Nanos) -> Self {
        let span = rate.period().saturating_add(jitter);
        Self {
            amount: rate.amount(),
            span,
            slice: span / SLICES,
            used: 0,
            slices: Slices::Own(VecDeque::new()),
            newest: Slice::default(),
            began: 0,
            forgotten: 0,
        }
    }

    /// Keeps its slices in `ring` from here on; it must be empty.
    pub(crate) fn keep_in(&mut self, ring: Arc<dyn Ring>) {
        self.slices = Slices::Elsewhere { ring, first: 0, end: 0, kept: 0 };
    }

    /// How long a charge counts, in nanoseconds.
    pub fn span(&self) -> Nanos {
        self.span
    }

    fn is_over(&self, slice: Slice, now: Nanos) -> bool {
        slice.last.saturating_add(self.span) <= now
    }

    /// Forgets what has left the window.
    #[inline]
    pub fn expire(&mut self, now: Nanos) {
        while let Some(oldest) = self.slices.get(0) {
            if !self.is_over(oldest, now) {
                return;
            }
            self.forget(oldest);
            self.slices.pop();
        }
        if self.newest.amount > 0 && self.is_over(self.newest, now) {
            self.forget(self.newest);
            self.newest.amount = 0;
        }
    }

    fn forget(&mut self, slice: Slice) {
        self.used = self.used.saturating_sub(slice.amount);
        self.forgotten = slice.last.saturating_add(1);
    }

    /// Whether `cost` fits, after [`Window::expire`].
    #[inline]
    pub fn fits(&self, cost: u64) -> bool {
        cost == 0 || self.used.saturating_add(cost) <= self.amount
    }

    /// The earliest time, not before `from`, at which `cost` fits if nothing else is charged. A cost above the amount
    /// never fits; it is treated as the amount, and the caller refuses it.
    pub fn earliest(&self, cost: u64, from: Nanos) -> Nanos {
        if self.fits(cost) {
            return from;
        }
        self.when_freed(self.used.saturating_add(cost).saturating_sub(self.amount)).max(from)
    }

    /// The earliest time at which `cost` fits behind `ahead`, a lower bound: every further amount takes another span.
    pub fn earliest_behind(&self, ahead: u64, cost: u64, from: Nanos) -> Nanos {
        if cost == 0 {
            return from;
        }
        let total = ahead.saturating_add(cost);
        let spans = total.saturating_sub(1) / self.amount;
        let rest = total - spans * self.amount;
        self.earliest(rest, from).saturating_add(spans.saturating_mul(self.span))
    }

    /// When the oldest slices that hold `amount` between them have left the window.
    fn when_freed(&self, amount: u64) -> Nanos {
        let mut freed: u64 = 0;
        for slice in self.slices.iter() {
            freed = freed.saturating_add(slice.amount);
            if freed >= amount {
                return slice.last.saturating_add(self.span);
            }
        }
        // The newest holds the rest; only a cost above the amount asks for more.
        self.newest.last.saturating_add(self.span)
    }

    /// Counts `cost` at `now`.
    #[inline]
    pub fn charge(&mut self, cost: u64, now: Nanos) {
        if cost == 0 {
            return;
        }
        self.used = self.used.saturating_add(cost);
        if self.newest.amount > 0 {
            // `now` before the beginning cannot be, but would only round to the safe side.
            if now < self.began.saturating_add(self.slice) {
                return self.join(cost, now);
            }
            if self.slices.push(self.newest).is_some() {
                return self.join(cost, now); // counts for longer than it must
            }
        }
        self.newest = Slice { last: now, amount: cost };
        self.began = now;
    }

    #[inline]
    fn join(&mut self, cost: u64, now: Nanos) {
        self.newest.last = self.newest.last.max(now);
        self.newest.amount = self.newest.amount.saturating_add(cost);
    }

    /// Takes `amount` of what was charged at `charged_at` and later back, if that is still in the window. Gives whether
    /// anything was.
    ///
    /// A call that was debited is charged in several slices. The earliest give back first: they leave the window before
    /// the others do, so that it counts too much for a while rather than too little.
    pub fn refund(&mut self, amount: u64, charged_at: Nanos, now: Nanos) -> bool {
        self.expire(now);
        if charged_at < self.forgotten {
            return false;
        }
        let mut left = amount;
        for index in self.slices.since(charged_at)..self.slices.len() {
            if left == 0 {
                break;
            }
            let Some(mut slice) = self.slices.get(index).filter(|slice| slice.amount > 0) else { continue };
            let back = left.min(slice.amount);
            slice.amount -= back;
            left -= back;
            self.slices.set(index, slice);
        }
        if self.newest.last >= charged_at {
            let back = left.min(self.newest.amount);
            self.newest.amount -= back;
            left -= back;
        }
        self.used = self.used.saturating_sub(amount - left);
        left < amount
    }

    /// What was charged after `since`, as far as slices tell: at least that much.
    pub fn charged_since(&self, since: Nanos) -> u64 {
        let newest = if self.newest.last > since { self.newest.amount } else { 0 };
        let later = self.slices.iter().rev().take_while(|slice| slice.last > since);
        later.map(|slice| slice.amount).fold(newest, u64::saturating_add)
    }

    /// What still counts at `now`, in no more than some tens of pieces: when each of them left, and how much.
    pub(crate) fn counted(&self, now: Nanos) -> impl Iterator<Item = (Nanos, u64)> {
        let piece = (self.span / 32).max(1);
        let mut pieces: Vec<(Nanos, u64)> = Vec::new();
        let slices = self.slices.iter().chain(std::iter::once(self.newest));
        for slice in slices.filter(|&slice| slice.amount > 0 && !self.is_over(slice, now)) {
            match pieces.last_mut() {
                // As of the last of them: it counts for too long rather than not for long enough.
                Some((last, amount)) if *last / piece == slice.last / piece => {
                    (*last, *amount) = (slice.last, amount.saturating_add(slice.amount));
                }
                _ => pieces.push((slice.last, slice.amount)),
            }
        }
        pieces.into_iter()
    }

    /// What could leave at `now` without exceeding the amount.
    pub fn available(&self, now: Nanos) -> u64 {
        let slices = self.slices.iter().chain([self.newest]);
        let expired = slices.take_while(|&slice| self.is_over(slice, now));
        let used = self.used.saturating_sub(expired.map(|slice| slice.amount).fold(0, u64::saturating_add));
        self.amount.saturating_sub(used)
    }

    /// Whether nothing is counted at `now`.
    pub fn is_empty(&self, now: Nanos) -> bool {
        let last = self.slices.len().checked_sub(1).and_then(|last| self.slices.get(last));
        (self.newest.amount == 0 || self.is_over(self.newest, now)) && last.is_none_or(|last| self.is_over(last, now))
    }

    /// What is not said by the rate, but for the slices themselves.
    #[inline]
    pub(crate) fn carry(&mut self, carrier: &mut impl Carrier) {
        let Self { used, slices, newest, began, forgotten, .. } = self;
        for word in [used, &mut newest.last, &mut newest.amount, began, forgotten] {
            carrier.word(word);
        }
        let (mut nowhere, mut kept_nowhere) = ((0, 0), 0);
        let (first, end, kept) = match slices {
            Slices::Elsewhere { first, end, kept, .. } => (first, end, kept),
            // Only an empty window changes places, when it is made.
            Slices::Own(_) => (&mut nowhere.0, &mut nowhere.1, &mut kept_nowhere),
        };
        carrier.word(first);
        carrier.word(end);
        *kept = *first;
    }

    /// Counts anew what is used, for one who does not know how far another got.
    pub(crate) fn recount(&mut self) {
        self.used = self.slices.iter().map(|slice| slice.amount).fold(self.newest.amount, u64::saturating_add);
    }

    /// Whether its numbers can be: as many slices as there are places, and no more used than they say.
    pub(crate) fn is_sound(&self) -> bool {
        match &self.slices {
            Slices::Own(_) => true,
            Slices::Elsewhere { first, end, .. } => *first <= *end && *end - *first <= PLACES,
        }
    }

    /// Goes on as another rate; what left stays counted, for as long as the new span says.
    pub fn change(&mut self, rate: &Rate, jitter: Nanos) {
        let new = Self::new(rate, jitter);
        self.amount = new.amount;
        self.span = new.span;
        self.slice = new.slice;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND;

    fn window(amount: u64) -> Window {
        Window::new(&Rate::new(amount, 60 * SECOND).unwrap(), 0)
    }

    #[test]
    fn what_left_counts_until_the_span_is_over() {
        let mut w = window(10);
        w.charge(6, 5 * SECOND);
        w.charge(4, 20 * SECOND);
        assert!(!w.fits(1) && w.fits(0));
        assert_eq!(w.earliest(6, 20 * SECOND), 65 * SECOND);
        assert_eq!(w.earliest(7, 20 * SECOND), 80 * SECOND);
        w.expire(65 * SECOND - 1);
        assert!(!w.fits(1));
        w.expire(65 * SECOND);
        assert!(w.fits(6) && !w.fits(7));
    }

    #[test]
    fn a_refund_reaches_only_the_window_that_was_charged() {
        let mut w = window(10);
        w.charge(10, SECOND);
        assert!(w.refund(3, SECOND, 2 * SECOND));
        assert!(w.fits(3) && !w.fits(4));
        assert!(!w.refund(3, SECOND, 61 * SECOND)); // it has left by itself
        assert_eq!(w.available(61 * SECOND), 10);
        assert!(!w.refund(3, 30 * SECOND, 62 * SECOND)); // never charged
        assert!(w.is_empty(62 * SECOND));
    }

    #[test]
    fn what_was_debited_later_is_given_back_as_well() {
        let mut w = window(100);
        w.charge(10, SECOND); // someone else
        w.charge(0, 2 * SECOND);
        w.charge(20, 3 * SECOND); // the debit of the call that was free
        assert!(w.refund(17, 2 * SECOND, 4 * SECOND));
        assert_eq!((w.used, w.available(62 * SECOND)), (13, 97));
        w.charge(5, 5 * SECOND); // debited once more
        assert!(w.refund(8, 2 * SECOND, 6 * SECOND));
        assert_eq!((w.used, w.available(62 * SECOND)), (10, 100));
    }

    #[test]
    fn a_span_that_shrank_and_grew_gives_nothing_back_for_others() {
        let mut w = window(100);
        w.charge(10, SECOND);
        w.charge(20, 20 * SECOND);
        w.change(&Rate::new(100, 10 * SECOND).unwrap(), 0);
        w.expire(25 * SECOND);
        w.change(&Rate::new(100, 60 * SECOND).unwrap(), 0);
        assert!(!w.refund(10, SECOND, 26 * SECOND));
        assert_eq!(w.used, 20);
    }

    #[test]
    fn memory_is_bounded_and_rounding_is_to_the_safe_side() {
        let mut w = Window::new(&Rate::new(1_000_000_000, 60 * SECOND).unwrap(), 0);
        let step = 100_000;
        for i in 0..2_000_000_u64 {
            w.expire(i * step);
            w.charge(1, i * step);
            assert!(w.slices.len() <= 2_050);
        }
        let exact = 60 * SECOND / step; // charges within the last span
        assert!(w.used >= exact && w.used <= exact + exact / 1_000, "{} {exact}", w.used);
    }

    #[test]
    fn a_queue_of_several_amounts_takes_as_many_spans() {
        let mut w = window(10);
        assert_eq!(w.earliest_behind(0, 10, 0), 0);
        assert_eq!(w.earliest_behind(10, 1, 0), 60 * SECOND);
        assert_eq!(w.earliest_behind(25, 5, 0), 120 * SECOND);
        w.charge(4, SECOND);
        assert_eq!(w.earliest_behind(2, 4, SECOND), SECOND);
        assert_eq!(w.earliest_behind(2, 5, SECOND), 61 * SECOND);
        assert_eq!(w.earliest_behind(12, 5, SECOND), 121 * SECOND);
    }
}
