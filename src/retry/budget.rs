//! The retries of all calls together, kept within a share of the calls.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter, nanos};
use parking_lot::Mutex;

use super::{InvalidArgument, Nanos};

const MINUTE: Nanos = 60_000_000_000;

/// How long callers count as a crowd after they were one. Longer than most outages, in which calls that fail fast are
/// rarely in flight together, however many there are.
const CROWD: Nanos = 5 * MINUTE;

/// How long no retry is asked for until the credit is full again.
const QUIET: Nanos = MINUTE;

/// One retry, in the unit that credit is kept in. A deposit is then a whole number for every ratio of six digits.
const RETRY: i64 = 1_000_000;

/// The largest ratio that makes sense: 100 retries for each first attempt.
const LARGEST_RATIO: f64 = 100.0;

/// A limit on retries, shared by all calls that should fail together rather than multiply an outage.
///
/// While at most `minimum` calls are in flight, and were during the last five minutes, every retry is allowed: so few
/// callers make no storm. With more, a retry must pass two tests:
///
/// 1. *A share of the calls in flight*, as Envoy's retry budget has it: retries that wait for their backoff or are
///    under way are at most `max(minimum, ratio * calls in flight)`. This bounds how many come at once, and works
///    for calls that take a minute as for calls that take a millisecond. It does not bound how many come in all: calls
///    that fail fast use its places again and again (1.4 to 1.6 requests per call where callers pause between calls,
///    see `tests/outage.rs`).
/// 2. *A credit*, as Finagle's and tower's retry budgets have it: each first attempt adds `ratio` of a retry, each
///    retry takes one, and no more is saved than the share above. So through an outage, as long as the callers are a
///    crowd, retries are at most `ratio` times the first attempts, those in flight when it began included, plus
///    `minimum`. Unlike Finagle's, the credit does not grow by time alone, unless no retry was asked for during a
///    minute and none is under way: then it is full again.
///
/// With `per_minute`, any retry must also be within that rate.
///
/// A refused retry is not queued: its call ends with the failure it had. So in an outage of seconds most of a crowd is
/// given up, which is what it costs not to multiply an outage of minutes. And a budget bounds retries, not first
/// attempts: callers that go on with their next call at once are slowed down by the limiter alone.
///
/// Clones share one account; all is behind one short lock. What it gives out gives itself back when dropped, so nothing
/// leaks, whatever ends a call. A child process after a fork needs a budget of its own.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// What a first attempt adds to the credit, in units of [`RETRY`].
    deposit: i64,
    /// Retries that are always allowed at once, in units of [`RETRY`].
    minimum: i64,
    rate: Option<RetryRate>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    calls: u32,
    retries: u32,
    /// What first attempts have earned and retries not used, in units of [`RETRY`].
    credit: i64,
    /// Until when the credit is asked for; `None` before there were ever more than `minimum` calls in flight.
    crowded_until: Option<Nanos>,
    /// When a retry was last asked for.
    asked: Option<Nanos>,
    granted: u64,
    suppressed: u64,
}

/// What a budget has in its books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Calls in flight, those between two attempts included.
    pub calls: u32,
    /// Retries waiting for their backoff or under way.
    pub retries: u32,
    /// Retries allowed so far.
    pub granted: u64,
    /// Retries refused so far.
    pub suppressed: u64,
}

impl RetryBudget {
    /// A budget of `ratio` retries per call, which leaves `minimum` calls alone, and allows at most `per_minute`
    /// retries in any minute.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`] unless `0 <= ratio <= 100`, and if `per_minute` is 0.
    pub fn new(ratio: f64, minimum: u32, per_minute: Option<u32>) -> Result<Self, InvalidArgument> {
        if !(0.0..=LARGEST_RATIO).contains(&ratio) {
            return Err(InvalidArgument::new("ratio", ratio, format!("a number from 0 to {LARGEST_RATIO}")));
        }
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "between 0 and 1e8")]
        let deposit = (ratio * RETRY as f64).round() as i64;
        let rate = match per_minute {
            None => None,
            Some(limit) => Some(RetryRate::new(
                NonZeroU32::new(limit)
                    .ok_or_else(|| InvalidArgument::new("per_minute", limit, "at least 1, or None"))?,
            )),
        };
        let minimum = i64::from(minimum) * RETRY;
        let state = State {
            calls: 0,
            retries: 0,
            credit: minimum,
            crowded_until: None,
            asked: None,
            granted: 0,
            suppressed: 0,
        };
        Ok(Self { shared: Arc::new(Shared { deposit, minimum, rate, state: Mutex::new(state) }) })
    }

    /// Counts a call whose first attempt starts at `now`, until what it gets is dropped. A call that waits to be
    /// admitted is not in flight yet.
    pub fn enter(&self, now: Nanos) -> CallSlot {
        let shared = &*self.shared;
        let mut state = shared.state.lock();
        state.calls = state.calls.saturating_add(1);
        if i64::from(state.calls) * RETRY > shared.minimum {
            state.crowded_until = Some(now.saturating_add(CROWD));
        }
        state.credit = (state.credit + shared.deposit).min(shared.share(state.calls));
        drop(state);
        CallSlot { shared: Arc::clone(&self.shared) }
    }

    /// The books at this moment.
    pub fn account(&self) -> Account {
        let state = self.shared.state.lock();
        Account { calls: state.calls, retries: state.retries, granted: state.granted, suppressed: state.suppressed }
    }
}

impl Shared {
    /// How many retries this many calls may have in flight, in units of [`RETRY`].
    fn share(&self, calls: u32) -> i64 {
        // At most 2^32 * 1e8, which an i64 holds.
        (i64::from(calls) * self.deposit).max(self.minimum)
    }

    fn try_retry(&self, now: Nanos) -> bool {
        let mut state = self.state.lock();
        let share = self.share(state.calls);
        if state.retries == 0 && state.asked.is_none_or(|asked| now.saturating_sub(asked) >= QUIET) {
            state.credit = share;
        }
        state.asked = Some(now);
        let crowded = state.crowded_until.is_some_and(|until| now < until);
        let in_share = (i64::from(state.retries) + 1) * RETRY <= share;
        let in_credit = !crowded || state.credit >= RETRY;
        // The rate is asked last, for it has no way to give back. The lock is held, so it sees times in order.
        let allowed = in_share && in_credit && self.rate.as_ref().is_none_or(|rate| rate.check(now));
        if allowed {
            state.retries = state.retries.saturating_add(1);
            state.granted = state.granted.saturating_add(1);
            state.credit = (state.credit - RETRY).max(0);
        } else {
            state.suppressed = state.suppressed.saturating_add(1);
        }
        allowed
    }
}

/// A call's place among the calls in flight; it ends when dropped.
#[derive(Debug)]
#[must_use = "the call counts as in flight until this is dropped"]
pub struct CallSlot {
    shared: Arc<Shared>,
}

impl CallSlot {
    /// A place for one retry of this call, or `None` if the budget does not allow it now. A refusal is final for this
    /// retry: asking again is another retry.
    pub fn try_retry(&self, now: Nanos) -> Option<RetrySlot> {
        self.shared.try_retry(now).then(|| RetrySlot { shared: Arc::clone(&self.shared) })
    }
}

impl Drop for CallSlot {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.calls = state.calls.saturating_sub(1);
    }
}

/// A retry's place in the budget, from its backoff to the end of its attempt; it ends when dropped.
#[derive(Debug)]
#[must_use = "the retry counts as in flight until this is dropped"]
pub struct RetrySlot {
    shared: Arc<Shared>,
}

impl Drop for RetrySlot {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.retries = state.retries.saturating_sub(1);
    }
}

/// At most so many retries in any minute: a quarter of them at once, the rest evenly.
///
/// A rate of `n` per minute with a burst of `b`, as it is commonly built, lets `n + b` through in the first minute.
/// Here one cell returns each `minute / (n - b + 1)`, so that no minute sees more than `n`.
#[derive(Debug)]
struct RetryRate {
    clock: DrivenClock,
    limiter: RateLimiter<NotKeyed, InMemoryState, DrivenClock, NoOpMiddleware<nanos::Nanos>>,
}

impl RetryRate {
    fn new(per_minute: NonZeroU32) -> Self {
        let burst = NonZeroU32::new(per_minute.get().div_ceil(4)).unwrap_or(NonZeroU32::MIN);
        let returning = u64::from(per_minute.get() - burst.get()) + 1;
        // At least 13 ns, so the quota is never the zero period that `with_period` has no answer for.
        let period = Duration::from_nanos(MINUTE.div_ceil(returning));
        let quota = Quota::with_period(period).unwrap_or(Quota::per_minute(NonZeroU32::MIN)).allow_burst(burst);
        let clock = DrivenClock::default();
        Self { limiter: RateLimiter::direct_with_clock(quota, clock.clone()), clock }
    }

    fn check(&self, now: Nanos) -> bool {
        self.clock.advance(now);
        self.limiter.check().is_ok()
    }
}

/// A clock for governor that shows the time of the decision at hand. It starts at 0, where governor's state does too.
#[derive(Debug, Clone, Default)]
struct DrivenClock {
    now: Arc<AtomicU64>,
}

impl DrivenClock {
    /// Half the range: governor adds to times without looking for overflow.
    const LATEST: Nanos = Nanos::MAX / 2;

    fn advance(&self, now: Nanos) {
        self.now.fetch_max(now.min(Self::LATEST), Ordering::Relaxed);
    }
}

impl Clock for DrivenClock {
    type Instant = nanos::Nanos;

    fn now(&self) -> nanos::Nanos {
        self.now.load(Ordering::Relaxed).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn crowd(budget: &RetryBudget, calls: usize, now: Nanos) -> Vec<CallSlot> {
        (0..calls).map(|_| budget.enter(now)).collect()
    }

    #[test]
    fn few_callers_are_left_alone() {
        let budget = RetryBudget::new(0.2, 3, None).unwrap();
        let calls = crowd(&budget, 3, 0);
        for second in 0..1_000 {
            let retries: Vec<_> = calls.iter().map(|call| call.try_retry(second * SECOND)).collect();
            assert!(retries.iter().all(Option::is_some));
        }
        assert_eq!(budget.account(), Account { calls: 3, retries: 0, granted: 3_000, suppressed: 0 });
    }

    #[test]
    fn retries_in_flight_are_a_share_of_the_calls() {
        let budget = RetryBudget::new(0.2, 3, None).unwrap();
        let calls = crowd(&budget, 200, 0);
        let retries: Vec<_> = calls.iter().filter_map(|call| call.try_retry(0)).collect();
        assert_eq!(retries.len(), 40);
        assert_eq!(budget.account(), Account { calls: 200, retries: 40, granted: 40, suppressed: 160 });
        drop(retries);
        drop(calls);
        assert_eq!(budget.account(), Account { calls: 0, retries: 0, granted: 40, suppressed: 160 });
    }

    #[test]
    fn each_first_attempt_earns_its_share_of_a_retry() {
        let budget = RetryBudget::new(0.2, 3, None).unwrap();
        let calls = crowd(&budget, 10, 0);
        // The minimum that was saved, and no more, though each place is given back at once.
        assert_eq!((0..10).filter(|_| calls[0].try_retry(0).is_some()).count(), 3);
        for second in 1..100 {
            drop(crowd(&budget, 5, second * SECOND));
            assert!(calls[0].try_retry(second * SECOND).is_some());
            assert!(calls[0].try_retry(second * SECOND).is_none());
        }
    }

    #[test]
    fn a_minute_in_which_no_one_asks_fills_the_credit() {
        let budget = RetryBudget::new(0.0, 3, None).unwrap();
        let calls = crowd(&budget, 4, 0);
        let granted = |now| {
            let call = budget.enter(now);
            (0..9).filter(|_| call.try_retry(now).is_some()).count()
        };
        assert_eq!(granted(0), 3);
        assert_eq!(granted(59 * SECOND), 0);
        assert_eq!(granted(118 * SECOND), 0);
        assert_eq!(granted(178 * SECOND), 3);
        drop(calls);
        // Five minutes after the last crowd, the callers that are left are few again.
        for now in (237..478).step_by(30) {
            assert_eq!(granted(now * SECOND), 0);
        }
        assert_eq!(granted(478 * SECOND), 9);
    }

    #[test]
    fn no_minute_sees_more_than_per_minute() {
        for limit in [1, 2, 3, 4, 10, 61, 1_000, u32::MAX] {
            let budget = RetryBudget::new(0.0, 1, Some(limit)).unwrap();
            let call = budget.enter(0);
            let times: Vec<Nanos> = (0..600)
                .map(|tick| 5 * SECOND + tick * SECOND / 3)
                .flat_map(|now| (0..20).map(move |_| now))
                .filter(|&now| call.try_retry(now).is_some())
                .collect();
            let most =
                times.iter().map(|&from| times.iter().filter(|&&at| (from..from + MINUTE).contains(&at)).count());
            let most = u32::try_from(most.max().unwrap()).unwrap();
            assert!(most <= limit && most >= limit.min(900), "{most} retries in a minute with a limit of {limit}");
            assert!(times.iter().filter(|&&at| at == 5 * SECOND).count() >= usize::min(20, limit.div_ceil(4) as usize));
        }
    }

    #[test]
    fn a_refusal_by_the_share_costs_no_rate() {
        let budget = RetryBudget::new(0.0, 1, Some(2)).unwrap();
        let call = budget.enter(0);
        let first = call.try_retry(0);
        assert!(first.is_some());
        assert!((0..9).all(|_| call.try_retry(30 * SECOND).is_none()));
        drop(first);
        assert!(call.try_retry(30 * SECOND).is_some());
        assert!(call.try_retry(31 * SECOND).is_none());
    }

    #[test]
    fn the_ends_of_the_clock_are_times_too() {
        let budget = RetryBudget::new(100.0, u32::MAX, Some(u32::MAX)).unwrap();
        for now in [0, Nanos::MAX, 5, Nanos::MAX, Nanos::MAX / 2] {
            let call = budget.enter(now);
            assert!(call.try_retry(now).is_some());
        }
    }

    #[test]
    fn what_is_not_allowed_is_named() {
        let error = |ratio, per_minute| RetryBudget::new(ratio, 3, per_minute).unwrap_err().to_string();
        assert_eq!(error(f64::NAN, None), "ratio must be a number from 0 to 100, not NaN");
        assert_eq!(error(-0.1, None), "ratio must be a number from 0 to 100, not -0.1");
        assert_eq!(error(0.2, Some(0)), "per_minute must be at least 1, or None, not 0");
    }
}
