//! What the provider's answers say of the rates of a ledger.

use crate::bucket::Bucket;
use crate::clock::{Nanos, SECOND};
use crate::cost::Dimension;
use crate::pace::{FULL, Permille};
use crate::rate::Rate;

use super::Ledger;
use super::account::Account;

/// What an answer says of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// What is limited.
    pub dimension: Dimension,
    /// How much may leave in the period.
    pub limit: Option<u64>,
    /// How much of it was left.
    pub remaining: Option<u64>,
    /// The period, in nanoseconds, if it is known.
    pub period: Option<Nanos>,
    /// Whether what is left is refilled all the time, and does not fall until a window is over.
    pub refilled: bool,
}

/// What the provider's answers say of one rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learned {
    /// The rate, by its dimension.
    pub dimension: Dimension,
    /// The rate, by its period.
    pub period: Nanos,
    /// How much may leave in the period.
    pub amount: u64,
    /// How much may leave at once.
    pub burst: u64,
    /// The speed, in thousandths.
    pub speed: u64,
}

impl Learned {
    /// What holds of a rate before an answer says anything of it.
    pub(crate) fn nothing(dimension: Dimension, rate: Rate) -> Self {
        Self { dimension, period: rate.period(), amount: rate.amount(), burst: rate.burst(), speed: FULL }
    }

    /// Whether both are of the same rate.
    pub(crate) fn is_of_same(&self, other: &Self) -> bool {
        (self.dimension, self.period) == (other.dimension, other.period)
    }
}

/// The provider's side of a rate, as far as its answers tell.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    /// When the newest call left whose answer said what is left: what older calls' answers say is no news.
    pub(super) heard: Nanos,
    /// The most that was ever left: what the provider's bucket holds.
    pub(super) most: u64,
    /// What would be left if nobody else used the quota.
    pub(super) alone: Bucket,
    /// What is left.
    pub(super) left: Bucket,
}

/// Whether two periods are the same but for rounding.
pub(super) fn nearly(one: Nanos, other: Nanos) -> bool {
    one.abs_diff(other) <= other / 50
}

impl Account {
    /// Whether those who use the same quota leave room for `cost`, as far as the provider's answers tell.
    #[inline]
    pub(super) fn neighbours_leave(&self, cost: u64, now: Nanos) -> bool {
        let Some(remote) = &self.remote else { return true };
        !self.pace.has_neighbours(self.rate.period(), now) || remote.left.fits(cost, now)
    }

    /// What is saved up beyond `requested` is not there when a cooldown ends.
    fn drain(&mut self, until: Nanos, requested: Option<u64>) {
        let second = u128::from(self.rate.amount()) * u128::from(SECOND) / u128::from(self.rate.period());
        let kept = requested.unwrap_or_else(|| u64::try_from(second).unwrap_or(u64::MAX));
        self.bucket.drain(kept.max(1), until);
    }

    /// Gives whether the rate is another now.
    fn learn(&mut self, told: &Told, sent_at: Nanos, now: Nanos, jitter: Option<Nanos>) -> bool {
        let before = self.rate;
        if let Some(limit) = told.limit.filter(|&limit| limit > 0) {
            let amount = limit.min(self.configured.amount());
            if amount != self.rate.amount()
                && let Some(rate) = self.configured.with_amount(amount)
            {
                self.change(rate, jitter, now);
            }
        }
        if let Some(left) = told.remaining {
            self.starts_anew |= !told.refilled;
            self.hear(left, sent_at, now);
        }
        self.rate != before
    }

    /// The provider had `left` when it counted the call that left at `sent_at`.
    fn hear(&mut self, left: u64, sent_at: Nanos, now: Nanos) {
        if self.remote.as_ref().is_some_and(|remote| sent_at < remote.heard) {
            return; // no news: a later call's answer has come
        }
        let period = self.rate.period();
        // What has left since is not in that number; nor is what has flown in.
        let elapsed = u128::from(now.saturating_sub(sent_at).min(period));
        let flown_in = u64::try_from(elapsed * u128::from(self.rate.amount()) / u128::from(period)).unwrap_or(u64::MAX);
        // Calls that left within the network's spread of that one may have been counted before it, or after it.
        let spread = self.window.span().saturating_sub(period);
        let full = self.remote.as_ref().map_or(left, |remote| remote.most.max(left));
        let cap = if self.starts_anew { left } else { full };
        let left_by = |time| left.saturating_add(flown_in).saturating_sub(self.window.charged_since(time)).min(cap);
        let (least, most) = (left_by(sent_at.saturating_sub(spread + 1)), left_by(sent_at.saturating_add(spread)));
        let news = left_by(sent_at);
        let remote = self.remote.get_or_insert_with(|| {
            let mut bucket = Self::remote_bucket(&self.rate, left, now);
            bucket.set_level(least, now);
            Remote { heard: sent_at, most: left, alone: bucket.clone(), left: bucket }
        });
        remote.heard = sent_at;
        if left > remote.most {
            remote.most = left.min(self.rate.amount());
            remote.alone = Self::remote_bucket(&self.rate, remote.most, now);
            remote.alone.set_level(least, now);
            remote.left = remote.alone.clone();
        }
        let mut expected = u64::try_from(remote.alone.available(now)).unwrap_or(0);
        if self.starts_anew {
            // In a window of the provider's there may be all that left in the last period.
            let used = self.rate.amount().saturating_sub(self.window.available(now));
            expected = expected.min(remote.most.saturating_sub(used));
        }
        let shared = expected.saturating_sub(most) > (remote.most / 50).max(1);
        if least > expected {
            remote.alone.set_level(least, now);
        }
        remote.left.set_level(news, now);
        self.pace.left(news, remote.most, shared, period, now);
        self.bucket.set_speed(self.pace.speed(), now);
    }

    /// A bucket like the provider's, which holds at most `most`.
    pub(super) fn remote_bucket(rate: &Rate, most: u64, now: Nanos) -> Bucket {
        let like = rate.with_burst(most.clamp(1, rate.amount())).unwrap_or(*rate);
        Bucket::new(&like, now)
    }
}

impl Ledger {
    /// Lets nothing leave before `until`. A cooldown is never shortened by another.
    pub fn cool_down(&mut self, until: Nanos) {
        self.cooldown = self.cooldown.max(until);
    }

    /// Lets nothing leave before `until` that is charged in `dimension`; nothing at all if no rate counts that.
    ///
    /// Of the rate that was short, the one of this `period` or, where nobody said, the one of the shortest, no more than
    /// `requested` may leave at once then: the wait was reckoned so that the provider's bucket has just that. Where nobody
    /// said how much that was, a second's worth: whoever waited does not leave in a herd. What the others have saved up
    /// stays.
    pub fn cool_down_in(&mut self, dimension: Dimension, period: Option<Nanos>, until: Nanos, requested: Option<u64>) {
        if !self.counts(dimension) {
            return self.cool_down(until);
        }
        let concerned = self.accounts.iter_mut().filter(|account| account.dimension == dimension);
        let mut concerned: Vec<_> = concerned.collect();
        let shortest = concerned.iter().map(|account| account.rate.period()).min().unwrap_or_default();
        let short = period.unwrap_or(shortest);
        for account in &mut concerned {
            account.cooldown = account.cooldown.max(until);
            if nearly(short, account.rate.period()) {
                account.drain(until, requested);
            }
        }
    }

    /// The time before which nothing leaves, 0 if there never was one.
    pub fn cooldown(&self) -> Nanos {
        self.cooldown
    }

    /// The provider is overloaded: every rate slows.
    pub fn overloaded(&mut self, now: Nanos) {
        for account in &mut self.accounts {
            account.pace.overloaded(now);
            account.bucket.set_speed(account.pace.speed(), now);
        }
    }

    /// A call succeeded: rates that were slowed get faster again, if calls use what there is.
    pub fn succeeded(&mut self, now: Nanos) {
        for account in &mut self.accounts {
            if account.pace.succeeded(account.rate.amount(), account.rate.period(), now) {
                account.bucket.set_speed(account.pace.speed(), now);
            }
        }
    }

    /// Takes in what an answer says of a limit, to a call that left at `sent_at`: the lower of it and of what was
    /// configured holds, and what is left counts if it is less than this process's own use explains.
    pub fn learn(&mut self, told: &Told, sent_at: Nanos, now: Nanos) {
        let jitter = self.jitter;
        let same = |account: &&mut Account| {
            account.dimension == told.dimension
                && told.period.is_none_or(|period| nearly(period, account.rate.period()))
        };
        // Without a period it can only be meant for a rate that is alone in its dimension.
        let rates = self.accounts.iter().filter(|account| account.dimension == told.dimension).count();
        if told.period.is_none() && rates != 1 {
            return;
        }
        for account in self.accounts.iter_mut().filter(same) {
            self.edition += u64::from(account.learn(told, sent_at, now, jitter));
        }
    }

    /// The speed of the slowest rate, in thousandths of what was configured.
    pub fn speed(&self) -> Permille {
        self.accounts.iter().map(|account| account.pace.speed()).min().unwrap_or(FULL)
    }

    /// The provider counts so much in the present window of a rate, of which not all left here: others used the quota, or
    /// this process did before it knew of the rate. It is charged to the window as if it left now.
    pub(crate) fn used_before(&mut self, dimension: Dimension, period: Nanos, used: u64, now: Nanos) {
        let of = self.accounts.iter_mut().filter(|account| account.dimension == dimension);
        for account in of.filter(|account| nearly(period, account.rate.period())) {
            let amount = account.rate.amount();
            if let Some(window) = account.guard_mut() {
                window.expire(now);
                window.charge(used.min(amount).saturating_sub(amount - window.available(now).min(amount)), now);
            }
        }
    }

    /// What the provider's answers have made of each rate.
    pub(crate) fn learned(&self) -> Vec<Learned> {
        let learned = |account: &Account| Learned {
            dimension: account.dimension,
            period: account.rate.period(),
            amount: account.rate.amount(),
            burst: account.rate.burst(),
            speed: account.pace.speed(),
        };
        self.accounts.iter().map(learned).collect()
    }
}
