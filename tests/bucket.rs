//! The bucket against governor's as an oracle, its exactness over long runs, and the wait that it tells.

#[path = "support/cases.rs"]
mod cases;
mod support;

use std::num::NonZeroU32;
use std::time::Duration;

use cases::cases;
use governor::clock::{Clock, FakeRelativeClock, Reference};
use governor::{Quota, RateLimiter};
use penstock::bucket::Bucket;
use penstock::clock::{Nanos, SECOND};
use penstock::rate::Rate;
use proptest::prelude::*;
use support::{Chance, MINUTE};

fn bucket(amount: u64, period: Nanos, burst: u64) -> Bucket {
    Bucket::new(&Rate::new(amount, period).unwrap().with_burst(burst).unwrap(), 0)
}

/// Steps of time and amounts asked for, from bunched to far apart relative to one token's time.
fn schedule(burst: u32) -> impl Strategy<Value = Vec<(u64, u32)>> {
    prop::collection::vec((prop_oneof![3 => 0..=30_u64, 3 => 0..=3_000_u64, 1 => 0..=40_000_u64], 1..=burst), 1..200)
}

proptest! {
    #![proptest_config(cases(2_000))]

    /// governor keeps the time of one token in whole nanoseconds; where that time is whole, both agree on every single
    /// answer and on the wait to the nanosecond.
    #[test]
    fn agrees_with_governor_where_a_tokens_time_is_whole(
        (burst, steps) in (1..=40_u32).prop_flat_map(|burst| (Just(burst), schedule(burst))),
        spacing in prop_oneof![1..=10_u64, 1_000..=1_000_000_u64, 1..=20_000_000_000_u64],
    ) {
        // Enough tokens to hold the burst, in a period long enough to be one.
        let amount = u64::from(burst).max(1_000_000_u64.div_ceil(spacing));
        let mut ours = bucket(amount, amount * spacing, u64::from(burst));
        let clock = FakeRelativeClock::default();
        let quota = Quota::with_period(Duration::from_nanos(spacing)).unwrap();
        let quota = quota.allow_burst(NonZeroU32::new(burst).unwrap());
        let theirs = RateLimiter::direct_with_clock(quota, clock.clone());
        let mut now = 0;
        for (step, n) in steps {
            // Hundredths of a token's time, or the very nanosecond when spacings are short.
            let step = u64::try_from(u128::from(step) * u128::from(spacing.max(100)) / 100).unwrap();
            clock.advance(Duration::from_nanos(step));
            now += step;
            match theirs.check_n(NonZeroU32::new(n).unwrap()).unwrap() {
                Ok(()) => {
                    prop_assert!(ours.fits(n.into(), now), "governor lets {n} go at {now}, we do not");
                    ours.charge(n.into(), now);
                }
                Err(not_until) => {
                    prop_assert!(!ours.fits(n.into(), now), "governor denies {n} at {now}, we do not");
                    let wait: u64 = not_until.earliest_possible().duration_since(clock.now()).into();
                    prop_assert_eq!(ours.earliest(n.into(), now) - now, wait);
                }
            }
        }
    }

    /// Where a token's time is not whole, governor's is up to a nanosecond short, so it may let go what we still hold
    /// back: by no more than that nanosecond for each token that left, and never the other way round.
    #[test]
    fn disagrees_with_governor_by_no_more_than_its_rounding(
        amount in 1..=1_000_000_u32,
        steps in schedule(1),
    ) {
        let mut ours = bucket(amount.into(), SECOND, 1);
        let spacing = SECOND / u64::from(amount);
        let clock = FakeRelativeClock::default();
        let quota = Quota::with_period(Duration::from_nanos(spacing)).unwrap();
        let theirs = RateLimiter::direct_with_clock(quota.allow_burst(NonZeroU32::MIN), clock.clone());
        let (mut now, mut left) = (0, 0);
        for (step, _) in steps {
            let step = step * spacing / 100;
            clock.advance(Duration::from_nanos(step));
            now += step;
            let (we, they) = (ours.fits(1, now), theirs.check().is_ok());
            prop_assert!(they || !we, "we let go at {now} what governor holds back");
            if they {
                left += 1;
                prop_assert!(ours.earliest(1, now) - now <= left, "more than the rounding apart at {now}");
                ours.charge(1, now.max(ours.earliest(1, now)));
            }
        }
    }

    /// The wait that is told is the shortest: denied until the very nanosecond, allowed at it, whatever came before.
    #[test]
    fn the_wait_that_is_told_is_exact(
        amount in prop_oneof![1..=100_u64, 1..=10_000_000_000_u64, 1..=Rate::MAX_AMOUNT],
        period in prop_oneof![Rate::MIN_PERIOD..=SECOND, SECOND..=86_400 * SECOND, Rate::MIN_PERIOD..=Rate::MAX_PERIOD],
        share in 0.0..=1.0_f64,
        calls in prop::collection::vec((0..=3_u8, 0.0..=1.2_f64, 0..=2 * SECOND), 1..60),
    ) {
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let part = |share: f64, whole: u64| (share * whole as f64) as u64;
        let burst = part(share, amount).clamp(1, amount);
        let mut bucket = bucket(amount, period, burst);
        let mut now = 0;
        for (what, share, step) in calls {
            now += step;
            let cost = part(share, burst).max(1);
            match what {
                0 => bucket.refund(cost, now),
                1 => bucket.charge(cost, now), // a debit, whether it fits or not
                _ => {
                    let at = bucket.earliest(cost, now);
                    prop_assert!(at >= now);
                    prop_assert!(bucket.fits(cost, at), "told {at}, and denied at it");
                    prop_assert!(at == now || !bucket.fits(cost, at - 1), "told {at}, and allowed before");
                    prop_assert_eq!(bucket.earliest_behind(0, cost, now), at);
                    now = at;
                    bucket.charge(cost, at);
                }
            }
        }
    }
}

/// Long runs, one call after the other as fast as the bucket allows: what leaves is the rate, to 0.01 %.
#[test]
fn is_exact_from_one_a_day_to_ten_billion_a_minute() {
    let day = 86_400 * SECOND;
    let mut chance = Chance::new(3);
    let mut rates = vec![
        (1, day),
        (3, day),
        (7, 3_600 * SECOND),
        (3, MINUTE),
        (600, MINUTE),
        (7, SECOND),
        (999_983, MINUTE),
        (400_000, MINUTE),
        (7_000_000_000, MINUTE), // 8.57 ns a token
        (9_999_999_967, MINUTE), // a prime: 6.0000000198 ns a token
        (10_000_000_000, MINUTE),
        (Rate::MAX_AMOUNT, MINUTE), // 16,667 tokens a nanosecond
    ];
    rates.extend((0..100).map(|_| (chance.between(1, 10_000_000_000), chance.between(SECOND, day))));
    for (amount, period) in rates {
        let default = Rate::new(amount, period).unwrap().burst();
        // A nanosecond holds several tokens of the fastest rates: a burst of 1 cannot carry those.
        let least = 1.max(u64::try_from(u128::from(amount) / u128::from(period)).unwrap() * 2);
        for burst in [least.min(amount), default.max(least), amount] {
            let cost = 1.max(burst / 7).min(amount);
            let mut bucket = bucket(amount, period, burst);
            bucket.charge(burst, 0);
            let (mut now, mut left) = (0, 0_u128);
            for _ in 0..30_000 {
                now = bucket.earliest(cost, now);
                bucket.charge(cost, now);
                left += u128::from(cost);
            }
            let exact = u128::from(now) * u128::from(amount); // both in 1/period of a token
            let off = exact.abs_diff(left * u128::from(period));
            assert!(off * 10_000 <= exact, "{amount} per {period} ns, burst {burst}: {off} of {exact}");
        }
    }
}

/// The same when nobody asks at the very nanosecond but on a coarse clock, which the burst makes up for.
#[test]
fn a_coarse_clock_loses_nothing_that_the_burst_holds() {
    for (amount, tick) in [(3_000_u64, 15_000_000_u64), (600, 50_000_000), (400_000, 15_000_000)] {
        let burst = (amount * tick).div_ceil(MINUTE) + 1;
        let mut bucket = bucket(amount, MINUTE, burst);
        let mut left = 0;
        let end = 24 * 60 * MINUTE;
        let mut now = 0;
        while now < end {
            now += tick;
            while bucket.fits(1, now) {
                bucket.charge(1, now);
                left += 1;
            }
        }
        let exact = 24 * 60 * amount;
        assert!(left <= exact + burst && (exact - left.min(exact)) * 10_000 <= exact, "{left} of {exact}");
    }
}

/// A change of the rate forgives nothing, however often it comes.
#[test]
fn changes_forgive_nothing() {
    let rate = |amount: u64| Rate::new(amount, MINUTE).unwrap().with_burst(1).unwrap();
    let mut bucket = Bucket::new(&rate(60), 0);
    let (mut left, end) = (0, 600 * SECOND);
    let mut now = 0;
    while now < end {
        while bucket.fits(1, now) {
            bucket.charge(1, now);
            left += 1;
        }
        now += SECOND / 10;
        bucket.change(&rate(60 + (now / SECOND) % 2), now);
    }
    assert!((600..=607).contains(&left), "{left} left in ten minutes at 60 to 61 a minute");
}

/// No order of extreme calls brings it to overflow.
#[test]
fn extremes_do_not_overflow() {
    let largest = Rate::new(Rate::MAX_AMOUNT, Rate::MAX_PERIOD).unwrap();
    let smallest = Rate::new(1, Rate::MIN_PERIOD).unwrap();
    let mut bucket = Bucket::new(&largest, 0);
    for _ in 0..40_000 {
        bucket.charge(u64::MAX, 0);
    }
    assert!(bucket.available(u64::MAX) < 0 && bucket.earliest(1, u64::MAX) == u64::MAX);
    for rate in [smallest, largest, smallest, largest] {
        bucket.change(&rate, u64::MAX);
        bucket.refund(u64::MAX, u64::MAX);
        bucket.charge(u64::MAX, 0);
        assert!(bucket.earliest(u64::MAX, u64::MAX) == u64::MAX);
        assert!(bucket.earliest_behind(u64::MAX, u64::MAX, 0) >= bucket.earliest(u64::MAX, 0));
    }
}
