//! The decision after a failed attempt: stop, or go on after this long.

use std::fmt;
use std::num::NonZeroU32;

use super::argument::{self, Readable};
use super::{Backoff, CallSlot, InvalidArgument, Nanos, Random, RetrySlot};

/// The longest stated wait that is waited for when no deadline says otherwise: 5 minutes, or `max_delay` if longer.
///
/// Per-minute quotas are back within a minute, and overloads within a few; a longer wait means a daily quota or a
/// spent account, which someone should hear of now. Google's own gemini-cli draws the line here too
/// (`googleQuotaErrors.ts`: a delay above 300 s is terminal); `OpenAI`'s SDK draws it at 120 s, Anthropic's nowhere.
const LONGEST_WAIT: Nanos = 300_000_000_000;

/// What kind of failure an attempt ended with; the kinds of a verdict that are not `ok`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// Over a rate; there is room again soon.
    Throttled,
    /// The provider has too much to do (503, 529), whoever asks.
    Overloaded,
    /// A broken connection, a timeout, a 5xx.
    Transient,
    /// The request is larger than the quota will ever allow.
    Oversize,
    /// A long-lived quota or the account is spent.
    QuotaExhausted,
    /// The request is wrong: authentication, permission, content.
    Fatal,
}

impl FailureKind {
    /// The word used in messages and counters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Overloaded => "overloaded",
            Self::Transient => "transient",
            Self::Oversize => "oversize",
            Self::QuotaExhausted => "quota_exhausted",
            Self::Fatal => "fatal",
        }
    }
}

/// What is known of a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure it was.
    pub kind: FailureKind,
    /// The wait that the provider stated, from now. Zero says as little as none: servers send it when they know none.
    pub wait: Option<Nanos>,
    /// Whether another attempt can help, by the facts known of the provider.
    pub retryable: bool,
    /// Whether the caller has already been given a part of the answer.
    pub streamed: bool,
    /// The server's own word (`x-should-retry`), which overrides `retryable`.
    pub should_retry: Option<bool>,
}

impl Failure {
    /// A failure of this kind, of which nothing more is known.
    pub const fn new(kind: FailureKind) -> Self {
        let retryable = matches!(kind, FailureKind::Throttled | FailureKind::Overloaded | FailureKind::Transient);
        Self { kind, wait: None, retryable, streamed: false, should_retry: None }
    }

    /// Whether another attempt can help. The server's word decides, except on what stays refused whoever says so: a
    /// request that is too large, and a quota that is spent.
    const fn curable(&self) -> bool {
        match (self.kind, self.should_retry) {
            (FailureKind::Oversize | FailureKind::QuotaExhausted, _) => false,
            (_, Some(word)) => word,
            (_, None) => self.retryable,
        }
    }

    fn stated_wait(&self) -> Option<Nanos> {
        self.wait.filter(|&wait| wait > 0)
    }

    /// Whether a retry must be paid for by the budget. A throttle with a stated wait is paced by the provider itself,
    /// and stops every caller of the limiter for that long: its retry adds no load when there is none to spare. An
    /// overload is not exempt even then, since all its callers come back when it ends.
    fn budgeted(&self) -> bool {
        self.kind != FailureKind::Throttled || self.stated_wait().is_none()
    }
}

/// How far a call has come. Made when its first attempt starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    attempts: u32,
    started: Nanos,
    delay: Option<Nanos>,
}

impl Progress {
    /// A call whose first attempt starts at `now`.
    pub const fn start(now: Nanos) -> Self {
        Self { attempts: 1, started: now, delay: None }
    }

    /// Attempts made so far, the one under way included.
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// When the first attempt started.
    pub const fn started(&self) -> Nanos {
        self.started
    }

    /// Counts the attempt that follows a [`Decision::Retry`] with this delay.
    pub const fn retried(&mut self, delay: Nanos) {
        self.attempts = self.attempts.saturating_add(1);
        self.delay = Some(delay);
    }
}

/// Why a call is not tried again. As text, it is what the raised exception is annotated with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// Another attempt cannot help.
    NotRetryable(FailureKind),
    /// The caller has had a part of the answer; sending the request again would repeat it.
    Streamed,
    /// This many attempts were made, which is all there are.
    Attempts(u32),
    /// The provider stated a longer wait than is waited for.
    WaitTooLong {
        /// The wait that was stated.
        wait: Nanos,
        /// The longest that would have been waited for.
        longest: Nanos,
    },
    /// The next attempt would start after the deadline.
    Deadline {
        /// How long from now the next attempt would have started.
        delay: Nanos,
        /// How much time there was left.
        left: Nanos,
    },
    /// Too many retries are under way for the calls there are.
    Budget,
}

impl StopReason {
    /// The word used in counters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotRetryable(_) => "not_retryable",
            Self::Streamed => "streamed",
            Self::Attempts(_) => "attempts",
            Self::WaitTooLong { .. } => "wait_too_long",
            Self::Deadline { .. } => "deadline",
            Self::Budget => "budget",
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotRetryable(kind) => write!(f, "not retried: {} is not cured by another attempt", kind.as_str()),
            Self::Streamed => f.write_str("not retried: a part of the answer had already been given to the caller"),
            Self::Attempts(1) => f.write_str("gave up after 1 attempt, the only one allowed"),
            Self::Attempts(attempts) => write!(f, "gave up after {attempts} attempts, all that are allowed"),
            Self::WaitTooLong { wait, longest } => write!(
                f,
                "not retried: the provider asks to wait {}, and at most {} is waited for",
                Readable(wait),
                Readable(longest)
            ),
            Self::Deadline { delay, left } => write!(
                f,
                "not retried: the next attempt would start in {}, and the deadline is in {}",
                Readable(delay),
                Readable(left)
            ),
            Self::Budget => f.write_str("not retried: the retry budget is spent"),
        }
    }
}

/// What to do after a failed attempt.
#[derive(Debug)]
pub enum Decision {
    /// Raise the failure.
    Stop(StopReason),
    /// Make another attempt, which passes the limiter like the first.
    Retry {
        /// How long to wait before it.
        delay: Nanos,
        /// Whether the provider stated the wait; else the backoff gave it.
        stated: bool,
        /// The retry's place in the budget, to be kept until its attempt has ended; `None` if it needs none.
        slot: Option<RetrySlot>,
    },
}

/// How often, how late and how spread out a failed call is tried again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    attempts: NonZeroU32,
    backoff: Backoff,
    deadline: Option<Nanos>,
    spread: Nanos,
}

impl Policy {
    /// A policy of at most `attempts` attempts, the first included, of which none starts later than `deadline` seconds
    /// after the first.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`] if `attempts` is 0, or if the deadline is not between 1 ns and 1e9 s.
    pub fn new(attempts: u32, backoff: Backoff, deadline: Option<f64>) -> Result<Self, InvalidArgument> {
        let attempts =
            NonZeroU32::new(attempts).ok_or_else(|| InvalidArgument::new("attempts", attempts, "at least 1"))?;
        let deadline = deadline.map(|seconds| argument::nanos("deadline", seconds, 1e-9)).transpose()?;
        Ok(Self { attempts, backoff, deadline, spread: 0 })
    }

    /// The same policy with stated waits lengthened by up to `spread`, by chance.
    ///
    /// Zero, the default, is right behind a limiter: whoever was told to wait re-enters through it, one after the
    /// other at the rate that is known, so there is no herd to spread and a later start is only quota left unused.
    /// Without a limiter all who were told the same time would return at the same time; the backoff's first step is
    /// a good spread then.
    #[must_use]
    pub const fn with_spread(self, spread: Nanos) -> Self {
        Self { spread, ..self }
    }

    /// At most this many attempts, the first included.
    pub const fn attempts(&self) -> NonZeroU32 {
        self.attempts
    }

    /// The delays where no wait was stated.
    pub const fn backoff(&self) -> &Backoff {
        &self.backoff
    }

    /// The longest stated wait that is waited for.
    ///
    /// A stated wait is a floor, and is not cut to `max_delay`: coming back earlier earns another refusal. So the
    /// question is only whether to wait that long. A deadline answers it for the caller; without one the answer is
    /// 5 minutes, or `max_delay` for whoever asked for longer delays than that.
    pub fn longest_wait(&self) -> Nanos {
        self.deadline.unwrap_or_else(|| self.backoff.max_delay().max(LONGEST_WAIT))
    }

    /// What to do at `now`, after the attempt that `progress` counts last has failed.
    ///
    /// The reasons to stop are looked at from the one that no setting could change to the one that another moment
    /// could, so the one that is told is the one that helps most; the budget is asked last, and never for a retry that
    /// will not be made. With no `call`, no budget is kept.
    pub fn decide(
        &self,
        progress: &Progress,
        failure: &Failure,
        now: Nanos,
        random: &mut Random,
        call: Option<&CallSlot>,
    ) -> Decision {
        if failure.streamed {
            return Decision::Stop(StopReason::Streamed);
        }
        if !failure.curable() {
            return Decision::Stop(StopReason::NotRetryable(failure.kind));
        }
        if progress.attempts >= self.attempts.get() {
            return Decision::Stop(StopReason::Attempts(progress.attempts));
        }
        let stated = failure.stated_wait();
        let delay = match stated {
            Some(wait) => wait.saturating_add(random.between(0, self.spread)),
            None => self.backoff.delay(progress.attempts, progress.delay, random),
        };
        if let Some(deadline) = self.deadline {
            let elapsed = now.saturating_sub(progress.started);
            if elapsed.saturating_add(delay) > deadline {
                return Decision::Stop(StopReason::Deadline { delay, left: deadline.saturating_sub(elapsed) });
            }
        } else if let Some(wait) = stated
            && wait > self.longest_wait()
        {
            return Decision::Stop(StopReason::WaitTooLong { wait, longest: self.longest_wait() });
        }
        let slot = match call {
            Some(call) if failure.budgeted() => match call.try_retry(now) {
                Some(slot) => Some(slot),
                None => return Decision::Stop(StopReason::Budget),
            },
            _ => None,
        };
        Decision::Retry { delay, stated: stated.is_some(), slot }
    }

    /// How long a call that was given up is to be answered with its last failure, if its request comes again: the
    /// stated wait, at most [`longest_wait`](Self::longest_wait), or else the next step of the backoff, without jitter.
    pub fn hold(&self, progress: &Progress, failure: &Failure) -> Nanos {
        match failure.stated_wait() {
            Some(wait) => wait.min(self.longest_wait()),
            None => self.backoff.step(progress.attempts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::{Jitter, RetryBudget};

    const SECOND: Nanos = 1_000_000_000;

    fn policy(attempts: u32, deadline: Option<f64>) -> Policy {
        Policy::new(attempts, Backoff::new(1.0, 2.0, 60.0, Jitter::None).unwrap(), deadline).unwrap()
    }

    fn after(attempts: u32) -> Progress {
        Progress { attempts, ..Progress::start(0) }
    }

    fn told(kind: FailureKind, seconds: u64) -> Failure {
        Failure { wait: Some(seconds * SECOND), ..Failure::new(kind) }
    }

    /// The delay in seconds, or why not.
    fn decide(policy: &Policy, attempts: u32, failure: &Failure, now: Nanos) -> Result<u64, StopReason> {
        match policy.decide(&after(attempts), failure, now, &mut Random::new(1), None) {
            Decision::Retry { delay, .. } => Ok(delay / SECOND),
            Decision::Stop(reason) => Err(reason),
        }
    }

    #[test]
    fn attempts_are_counted_with_the_first() {
        let policy = policy(3, None);
        let failure = Failure::new(FailureKind::Transient);
        assert_eq!(decide(&policy, 1, &failure, 0), Ok(1));
        assert_eq!(decide(&policy, 2, &failure, 0), Ok(2));
        assert_eq!(decide(&policy, 3, &failure, 0), Err(StopReason::Attempts(3)));
        assert_eq!(decide(&policy, u32::MAX, &failure, 0), Err(StopReason::Attempts(u32::MAX)));
    }

    #[test]
    fn only_what_another_attempt_can_cure_is_retried() {
        let policy = policy(5, None);
        for kind in [FailureKind::Throttled, FailureKind::Overloaded, FailureKind::Transient] {
            assert_eq!(decide(&policy, 1, &Failure::new(kind), 0), Ok(1));
        }
        for kind in [FailureKind::Oversize, FailureKind::QuotaExhausted, FailureKind::Fatal] {
            assert_eq!(decide(&policy, 1, &Failure::new(kind), 0), Err(StopReason::NotRetryable(kind)));
        }
    }

    #[test]
    fn the_server_decides_except_on_what_stays_refused() {
        let policy = policy(5, None);
        let ordered = |kind, word| Failure { should_retry: Some(word), ..Failure::new(kind) };
        assert_eq!(decide(&policy, 1, &ordered(FailureKind::Fatal, true), 0), Ok(1));
        for (kind, word) in
            [(FailureKind::Transient, false), (FailureKind::Oversize, true), (FailureKind::QuotaExhausted, true)]
        {
            assert_eq!(decide(&policy, 1, &ordered(kind, word), 0), Err(StopReason::NotRetryable(kind)));
        }
        let streamed = Failure { streamed: true, ..ordered(FailureKind::Transient, true) };
        assert_eq!(decide(&policy, 1, &streamed, 0), Err(StopReason::Streamed));
    }

    #[test]
    fn a_stated_wait_replaces_the_backoff_and_is_not_cut_to_max_delay() {
        let policy = policy(5, None);
        assert_eq!(decide(&policy, 4, &told(FailureKind::Throttled, 2), 0), Ok(2));
        assert_eq!(decide(&policy, 1, &told(FailureKind::Throttled, 90), 0), Ok(90));
        assert_eq!(decide(&policy, 1, &told(FailureKind::Throttled, 300), 0), Ok(300));
        // Zero is what servers say that know nothing.
        assert_eq!(decide(&policy, 2, &told(FailureKind::Throttled, 0), 0), Ok(2));
    }

    #[test]
    fn a_wait_of_hours_is_told_at_once() {
        let stop = decide(&policy(5, None), 1, &told(FailureKind::Throttled, 3_600), 0).unwrap_err();
        assert_eq!(stop, StopReason::WaitTooLong { wait: 3_600 * SECOND, longest: 300 * SECOND });
        // Whoever sets longer delays, or a longer deadline, has said that they would wait.
        let patient = Policy::new(5, Backoff::new(1.0, 2.0, 3_600.0, Jitter::None).unwrap(), None).unwrap();
        assert_eq!(decide(&patient, 1, &told(FailureKind::Throttled, 3_600), 0), Ok(3_600));
        assert_eq!(decide(&policy(5, Some(7_200.0)), 1, &told(FailureKind::Throttled, 3_600), 0), Ok(3_600));
    }

    #[test]
    fn the_deadline_is_looked_at_before_sleeping() {
        let policy = policy(5, Some(10.0));
        assert_eq!(decide(&policy, 1, &told(FailureKind::Overloaded, 4), 6 * SECOND), Ok(4));
        let stop = decide(&policy, 1, &told(FailureKind::Overloaded, 4), 6 * SECOND + 1).unwrap_err();
        assert_eq!(stop, StopReason::Deadline { delay: 4 * SECOND, left: 4 * SECOND - 1 });
        let stop = decide(&policy, 1, &Failure::new(FailureKind::Transient), 99 * SECOND).unwrap_err();
        assert_eq!(stop, StopReason::Deadline { delay: SECOND, left: 0 });
    }

    #[test]
    fn the_budget_is_asked_last_and_not_for_what_the_provider_paces() {
        let budget = RetryBudget::new(0.0, 0, None).unwrap();
        let call = budget.enter(0);
        let policy = policy(2, None);
        let mut random = Random::new(1);
        let mut decide = |attempts, failure| policy.decide(&after(attempts), &failure, 0, &mut random, Some(&call));
        assert!(matches!(decide(1, told(FailureKind::Throttled, 2)), Decision::Retry { slot: None, stated: true, .. }));
        assert!(matches!(decide(2, Failure::new(FailureKind::Transient)), Decision::Stop(StopReason::Attempts(2))));
        assert_eq!(budget.account().suppressed, 0);
        for failure in [
            Failure::new(FailureKind::Throttled),
            told(FailureKind::Throttled, 0),
            told(FailureKind::Overloaded, 2),
            Failure::new(FailureKind::Transient),
        ] {
            assert!(matches!(decide(1, failure), Decision::Stop(StopReason::Budget)));
        }
        assert_eq!(budget.account().suppressed, 4);
    }

    #[test]
    fn a_call_given_up_is_held_back_for_the_wait_or_the_next_step() {
        let policy = policy(3, None);
        assert_eq!(policy.hold(&after(3), &Failure::new(FailureKind::Transient)), 4 * SECOND);
        assert_eq!(policy.hold(&after(3), &told(FailureKind::Throttled, 20)), 20 * SECOND);
        assert_eq!(policy.hold(&after(3), &told(FailureKind::Throttled, 86_400)), 300 * SECOND);
    }

    #[test]
    fn reasons_are_readable() {
        let texts = [
            (
                StopReason::NotRetryable(FailureKind::QuotaExhausted),
                "not retried: quota_exhausted is not cured by another attempt",
            ),
            (StopReason::Attempts(1), "gave up after 1 attempt, the only one allowed"),
            (StopReason::Attempts(5), "gave up after 5 attempts, all that are allowed"),
            (
                StopReason::WaitTooLong { wait: 3_600 * SECOND, longest: 300 * SECOND },
                "not retried: the provider asks to wait 3600 s, and at most 300 s is waited for",
            ),
            (
                StopReason::Deadline { delay: 20 * SECOND, left: 3_250_000_000 },
                "not retried: the next attempt would start in 20 s, and the deadline is in 3.25 s",
            ),
            (StopReason::Budget, "not retried: the retry budget is spent"),
        ];
        for (reason, text) in texts {
            assert_eq!(reason.to_string(), text);
        }
    }

    #[test]
    fn what_is_not_allowed_is_named() {
        let backoff = *policy(1, None).backoff();
        let error = |attempts, deadline| Policy::new(attempts, backoff, deadline).unwrap_err().to_string();
        assert_eq!(error(0, None), "attempts must be at least 1, not 0");
        assert_eq!(error(1, Some(f64::NAN)), "deadline must be a number of seconds from 0.000000001 to 1e9, not NaN");
        assert_eq!(error(1, Some(0.0)), "deadline must be a number of seconds from 0.000000001 to 1e9, not 0");
    }
}
