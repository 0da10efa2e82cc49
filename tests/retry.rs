//! Properties of retries: whatever comes, delays, floors, deadlines and budgets hold.

#[path = "support/cases.rs"]
mod cases;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use cases::cases;
use penstock::retry::{
    Account, Backoff, CallSlot, Decision, Failure, FailureKind, Jitter, Memory, Nanos, Policy, Progress, Random,
    RetryBudget, RetrySlot, StopReason,
};
use proptest::collection::vec;
use proptest::prelude::*;

const SECOND: Nanos = 1_000_000_000;

fn jitters() -> impl Strategy<Value = Jitter> {
    prop_oneof![Just(Jitter::None), Just(Jitter::Full), Just(Jitter::Equal), Just(Jitter::Decorrelated)]
}

prop_compose! {
    /// Any backoff, with its settings.
    fn backoffs()(
        max in 0.0..=1e9_f64, share in 0.0..=1.0_f64, factor in prop_oneof![1.0..4.0_f64, 1.0..1e300_f64],
        jitter in jitters(),
    ) -> (Backoff, f64, f64, Jitter) {
        let initial = max * share;
        (Backoff::new(initial, factor, max, jitter).unwrap(), initial, factor, jitter)
    }
}

fn failures() -> impl Strategy<Value = Failure> {
    let kinds = prop_oneof![
        4 => Just(FailureKind::Throttled),
        4 => Just(FailureKind::Overloaded),
        4 => Just(FailureKind::Transient),
        1 => Just(FailureKind::Oversize),
        1 => Just(FailureKind::QuotaExhausted),
        1 => Just(FailureKind::Fatal),
    ];
    let waits = prop_oneof![Just(None), Just(Some(0)), (0..600 * SECOND).prop_map(Some), any::<u64>().prop_map(Some),];
    (kinds, waits, prop::bool::weighted(0.9), prop::bool::weighted(0.05), prop::option::weighted(0.2, any::<bool>()))
        .prop_map(|(kind, wait, retryable, streamed, should_retry)| Failure {
            wait,
            retryable: retryable && Failure::new(kind).retryable,
            streamed,
            should_retry,
            ..Failure::new(kind)
        })
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn delays_keep_within_their_formula(
        (backoff, initial, factor, jitter) in backoffs(), retry in prop_oneof![0..20_u32, any::<u32>()],
        previous in prop::option::of(any::<u64>()), seed in any::<u64>(),
    ) {
        let max = backoff.max_delay();
        let step = backoff.step(retry);
        // The formula in floating point, which is exact to a few parts in 2^53.
        let formula = if initial == 0.0 { 0.0 } else { initial * factor.powf(f64::from(retry.max(1) - 1)) * 1e9 };
        #[expect(clippy::cast_precision_loss)]
        let (step_, max_) = (step as f64, max as f64);
        // A step of the formula is off by the half nanosecond that `initial` was rounded by, grown with it.
        let slack = 1.0 + formula * (1e-9 + if initial > 0.0 { 1e-9 / initial } else { 0.0 });
        prop_assert!((step_ - formula.min(max_)).abs() <= slack.min(max_ + 1.0), "{} against {}", step_, formula);
        let delay = backoff.delay(retry, previous, &mut Random::new(seed));
        prop_assert!(delay <= max);
        match jitter {
            Jitter::None => prop_assert_eq!(delay, step),
            Jitter::Full => prop_assert!(delay <= step),
            Jitter::Equal => prop_assert!((step / 2..=step).contains(&delay)),
            Jitter::Decorrelated => {
                let first = backoff.step(1);
                prop_assert!(delay >= first);
                prop_assert!(delay <= previous.unwrap_or(first).max(first).saturating_mul(3));
            }
        }
    }

    /// A whole call, failure by failure, until it is given up.
    #[test]
    fn a_call_never_passes_its_limits(
        (backoff, ..) in backoffs(), attempts in 1..20_u32, deadline in prop::option::of(1e-3..1e4_f64),
        spread in prop_oneof![Just(0), any::<u64>()], start in any::<u64>(), seed in any::<u64>(),
        failures in vec((failures(), 0..100 * SECOND), 20),
    ) {
        let policy = Policy::new(attempts, backoff, deadline).unwrap().with_spread(spread);
        let mut random = Random::new(seed);
        let mut progress = Progress::start(start);
        let mut now = start;
        let mut stopped = false;
        for (failure, took) in failures {
            now = now.saturating_add(took);
            match policy.decide(&progress, &failure, now, &mut random, None) {
                Decision::Retry { delay, stated, slot } => {
                    prop_assert!(progress.attempts() < attempts);
                    prop_assert!(!failure.streamed);
                    prop_assert!(failure.should_retry.unwrap_or(failure.retryable));
                    prop_assert!(!matches!(failure.kind, FailureKind::Oversize | FailureKind::QuotaExhausted));
                    prop_assert!(slot.is_none());
                    if stated {
                        let wait = failure.wait.unwrap();
                        prop_assert!((wait..=wait.saturating_add(spread)).contains(&delay));
                        prop_assert!(wait <= policy.longest_wait());
                    } else {
                        prop_assert!(failure.wait.is_none_or(|wait| wait == 0));
                        prop_assert!(delay <= backoff.max_delay());
                    }
                    if let Some(deadline) = deadline {
                        let late = u128::from(now) - u128::from(start) + u128::from(delay);
                        #[expect(clippy::cast_precision_loss)]
                        let late = late as f64;
                        prop_assert!(late <= deadline * 1e9 + 1.0);
                    }
                    prop_assert!(policy.hold(&progress, &failure) <= policy.longest_wait().max(backoff.max_delay()));
                    progress.retried(delay);
                    now = now.saturating_add(delay);
                }
                Decision::Stop(reason) => {
                    match reason {
                        StopReason::Streamed => prop_assert!(failure.streamed),
                        StopReason::NotRetryable(kind) => prop_assert_eq!(kind, failure.kind),
                        StopReason::Attempts(made) => prop_assert_eq!(made, attempts),
                        StopReason::WaitTooLong { wait, longest } => prop_assert!(wait > longest && deadline.is_none()),
                        StopReason::Deadline { delay, left } => prop_assert!(delay > left && deadline.is_some()),
                        StopReason::Budget => prop_assert!(false, "there is no budget"),
                    }
                    prop_assert!(!reason.to_string().is_empty());
                    stopped = true;
                    break;
                }
            }
        }
        // Twenty failures are as many as any call may have.
        prop_assert!(stopped);
    }

    #[test]
    fn the_same_seed_decides_the_same(
        (backoff, ..) in backoffs(), failure in failures(), seed in any::<u64>(), now in any::<u64>(),
    ) {
        let policy = Policy::new(5, backoff, None).unwrap();
        let progress = Progress::start(now);
        let decide = || format!("{:?}", policy.decide(&progress, &failure, now, &mut Random::new(seed), None));
        prop_assert_eq!(decide(), decide());
    }

    /// The books against what is held, and the two promises of a crowd: the share, and the credit.
    #[test]
    fn a_budget_keeps_its_books(
        ratio in 0_u32..200, minimum in 0..5_u32, per_minute in prop::option::of(1..50_u32),
        steps in vec((0..5_u8, any::<prop::sample::Index>()), 0..400),
    ) {
        let budget = RetryBudget::new(f64::from(ratio) / 100.0, minimum, per_minute).unwrap();
        // One more than `minimum`, for all of the test: a crowd.
        let crowd: Vec<CallSlot> = (0..=minimum).map(|_| budget.enter(0)).collect();
        let mut calls: Vec<CallSlot> = Vec::new();
        let mut retries: Vec<RetrySlot> = Vec::new();
        let (mut entered, mut granted, mut suppressed) = (minimum + 1, 0_u64, 0_u64);
        for (at, (step, index)) in (0..).zip(steps) {
            let now = at * SECOND / 10; // 40 s in all, within one minute
            match step {
                0 => {
                    calls.push(budget.enter(now));
                    entered += 1;
                }
                1 if !calls.is_empty() => drop(calls.swap_remove(index.index(calls.len()))),
                2 if !retries.is_empty() => drop(retries.swap_remove(index.index(retries.len()))),
                1 | 2 => {}
                _ => match crowd[0].try_retry(now) {
                    Some(slot) => {
                        retries.push(slot);
                        granted += 1;
                        let (held, calls) = (retries.len(), calls.len() + crowd.len());
                        prop_assert!(held * 100 <= (ratio as usize * calls).max(minimum as usize * 100));
                        prop_assert!(granted * 100 <= u64::from(minimum * 100 + ratio * entered));
                        prop_assert!(per_minute.is_none_or(|limit| granted <= u64::from(limit)));
                    }
                    None => suppressed += 1,
                },
            }
            let account = budget.account();
            prop_assert_eq!(account.calls as usize, calls.len() + crowd.len());
            prop_assert_eq!(account.retries as usize, retries.len());
            prop_assert_eq!((account.granted, account.suppressed), (granted, suppressed));
        }
        drop((calls, retries, crowd));
        prop_assert_eq!(budget.account(), Account { calls: 0, retries: 0, granted, suppressed });
    }

    /// Against a plain list that is searched from end to end.
    #[test]
    fn a_memory_is_a_bounded_map_with_ends(
        capacity in 1..8_usize, steps in vec((any::<bool>(), 0..12_u64, 0..50_u64, 0..4_u64), 0..200),
    ) {
        let mut memory = Memory::new(NonZeroUsize::new(capacity).unwrap());
        let mut model: Vec<(u64, Nanos, usize)> = Vec::new();
        let mut now = 0;
        for (payload, (remember, hash, length, pass)) in steps.into_iter().enumerate() {
            now += pass;
            if remember {
                let until = now + length;
                let mut forgotten = memory.remember(hash, until, payload, now);
                let before: Vec<usize> = model.iter().map(|entry| entry.2).chain([payload]).collect();
                model.retain(|&(_, until, _)| until > now);
                if length > 0 {
                    model.retain(|&(known, ..)| known != hash);
                    if model.len() == capacity {
                        let first = *model.iter().min_by_key(|&&(hash, until, _)| (until, hash)).unwrap();
                        model.retain(|&entry| entry != first);
                    }
                    model.push((hash, until, payload));
                }
                let mut expected: Vec<usize> =
                    before.into_iter().filter(|old| !model.iter().any(|(.., kept)| kept == old)).collect();
                forgotten.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(forgotten, expected);
            }
            for hash in 0..12 {
                let expected = model.iter().find(|&&(known, until, _)| known == hash && until > now);
                prop_assert_eq!(memory.recall(hash, now), expected.map(|(_, until, payload)| (*until, payload)));
            }
            prop_assert!(memory.len() <= capacity);
        }
    }
}

#[test]
fn a_budget_loses_nothing_between_threads() {
    const THREADS: u64 = 8;
    let budget = RetryBudget::new(0.2, 3, None).unwrap();
    let done = AtomicBool::new(false);
    let (granted, suppressed) = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let account = budget.account();
                // 20 % of all the calls that the threads hold at most, which is what was in flight at any grant.
                assert!(u64::from(account.retries) <= 20 * THREADS / 5, "{account:?}");
                assert!(u64::from(account.calls) <= 20 * THREADS, "{account:?}");
                thread::yield_now();
            }
        });
        let workers: Vec<_> = (0..THREADS)
            .map(|seed| {
                let budget = &budget;
                scope.spawn(move || {
                    let mut random = Random::new(seed);
                    let mut calls = Vec::new();
                    let mut retries = Vec::new();
                    let (mut granted, mut suppressed) = (0, 0);
                    for now in 0..20_000 {
                        match random.between(0, 3) {
                            0 if calls.len() < 20 => calls.push(budget.enter(now)),
                            0 | 1 => drop(calls.pop()),
                            2 => drop(retries.pop()),
                            _ => match calls.last().map(|call| call.try_retry(now)) {
                                Some(Some(slot)) => {
                                    retries.push(slot);
                                    granted += 1;
                                }
                                Some(None) => suppressed += 1,
                                None => {}
                            },
                        }
                    }
                    (granted, suppressed)
                })
            })
            .collect();
        let totals = workers.into_iter().map(|worker| worker.join().unwrap());
        let totals = totals.fold((0, 0), |sum: (u64, u64), one| (sum.0 + one.0, sum.1 + one.1));
        done.store(true, Ordering::Relaxed);
        watcher.join().unwrap();
        totals
    });
    assert!(granted > 0 && suppressed > 0);
    assert_eq!(budget.account(), Account { calls: 0, retries: 0, granted, suppressed });
}
