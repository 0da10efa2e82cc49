//! All rates of a limiter: the earliest time for a cost, charge all or none, settle, cooldown.

use std::fmt;
use std::sync::Arc;

use crate::bucket::Bucket;
use crate::clock::{Nanos, SECOND};
use crate::cost::{Cost, Dimension};
use crate::pace::{FULL, Pace, Permille};
use crate::rate::Rate;
use crate::window::{Ring, Window};
use crate::words::Carrier;

/// How many rates a ledger may have that is kept outside of this process's memory.
pub(crate) const MOST_RATES: usize = 16;

/// A cost that no wait can satisfy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oversize {
    /// The dimension that is short.
    pub dimension: Dimension,
    /// What the call costs in it.
    pub cost: u64,
    /// The largest cost that its rates admit.
    pub limit: u64,
}

impl fmt::Display for Oversize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dimension, cost, limit } = self;
        write!(f, "a cost of {cost} {dimension} exceeds the limit of {limit}: no wait can satisfy it")
    }
}

impl std::error::Error for Oversize {}

/// What left some time ago, to be put back into a window that was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// The rate, by its dimension.
    pub dimension: Dimension,
    /// The rate, by its period.
    pub period: Nanos,
    /// How long ago, in nanoseconds.
    pub ago: Nanos,
    /// How much.
    pub amount: u64,
}

/// What the provider counts in the present period of one rate, whoever used it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The rate, by its dimension.
    pub dimension: Dimension,
    /// The rate, by its period.
    pub period: Nanos,
    /// How much.
    pub used: u64,
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

/// How one rate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// What the rate counts.
    pub dimension: Dimension,
    /// The rate itself.
    pub rate: Rate,
    /// What could leave now, negative when in debt.
    pub available: i64,
    /// What could leave now without the pacing of the burst: the room in the window. The amount, without a guard.
    pub window: u64,
}

#[derive(Clone, Debug)]
struct Account {
    dimension: Dimension,
    /// What was configured; no answer of the provider raises the rate above it.
    configured: Rate,
    rate: Rate,
    bucket: Bucket,
    /// What left in the last period. It guards the rate, unless that has none; what answers say is left is read against it.
    window: Window,
    /// Until when the guard last held a call back. The bucket must not run on times before that: it would save up, for
    /// one large burst, what the guard did not let go.
    held: Nanos,
    /// Nothing that is charged to this rate leaves before this time.
    cooldown: Nanos,
    pace: Pace,
    remote: Option<Remote>,
    /// Whether answers have shown that the provider's count is no bucket that is refilled all the time: their numbers look
    /// like those of one for a moment now and then.
    starts_anew: bool,
    /// Which of the ledger's rings its window is kept in.
    ring: usize,
}

/// The provider's side of a rate, as far as its answers tell.
#[derive(Clone, Debug)]
struct Remote {
    /// When the newest call left whose answer said what is left: what older calls' answers say is no news.
    heard: Nanos,
    /// The most that was ever left: what the provider's bucket holds.
    most: u64,
    /// What would be left if nobody else used the quota.
    alone: Bucket,
    /// What is left.
    left: Bucket,
}

impl Account {
    fn new(dimension: Dimension, rate: Rate, jitter: Option<Nanos>, now: Nanos) -> Self {
        let (bucket, window) = (Bucket::new(&rate, now), Window::new(&rate, Self::spread(&rate, jitter)));
        let (configured, pace) = (rate, Pace::default());
        let (held, cooldown, remote) = (0, 0, None);
        Self { dimension, configured, rate, bucket, window, held, cooldown, pace, remote, starts_anew: false, ring: 0 }
    }

    /// Keeps its window in that ring of `rings`.
    fn keep_in(&mut self, rings: &[Arc<dyn Ring>], ring: usize) {
        self.ring = ring;
        if let Some(ring) = rings.get(ring) {
            self.window.keep_in(Arc::clone(ring));
        }
    }

    /// What is not said by its rates.
    #[inline]
    fn carry(&mut self, carrier: &mut impl Carrier) {
        self.bucket.carry(carrier);
        self.window.carry(carrier);
        carrier.word(&mut self.held);
        carrier.word(&mut self.cooldown);
        self.pace.carry(carrier);
        let mut heard = self.remote.is_some();
        carrier.flag(&mut heard);
        if !heard {
            self.remote = None;
            return;
        }
        let unheard = || {
            let bucket = Bucket::new(&self.rate, 0);
            Remote { heard: 0, most: 0, alone: bucket.clone(), left: bucket }
        };
        let remote = self.remote.get_or_insert_with(unheard);
        let most = remote.most;
        carrier.word(&mut remote.heard);
        carrier.word(&mut remote.most);
        if remote.most != most {
            remote.alone = Self::remote_bucket(&self.rate, remote.most, 0);
            remote.left = remote.alone.clone();
        }
        remote.alone.carry(carrier);
        remote.left.carry(carrier);
    }

    /// Whether its numbers can be.
    fn is_sound(&self) -> bool {
        let heard = self.remote.as_ref().is_none_or(|remote| remote.alone.is_sound() && remote.left.is_sound());
        heard && self.window.is_sound() && self.bucket.is_sound() && self.pace.is_sound()
    }

    fn spread(rate: &Rate, jitter: Option<Nanos>) -> Nanos {
        jitter.unwrap_or_else(|| rate.default_jitter())
    }

    /// The window, where it guards the rate.
    #[inline]
    fn guard(&self) -> Option<&Window> {
        self.rate.window().then_some(&self.window)
    }

    #[inline]
    fn guard_mut(&mut self) -> Option<&mut Window> {
        self.rate.window().then_some(&mut self.window)
    }

    /// How long a charge can still be refunded: as long as it counts.
    fn span(&self) -> Nanos {
        self.guard().map_or(self.rate.period(), Window::span)
    }

    #[inline]
    fn due(&mut self, cost: u64, from: Nanos, now: Nanos) -> Nanos {
        if cost == 0 {
            return from;
        }
        let mut at = self.bucket.earliest(cost, from).max(self.cooldown);
        if let Some(remote) = &self.remote
            && self.pace.has_neighbours(self.rate.period(), now)
        {
            at = at.max(remote.left.earliest(cost, from));
        }
        if !self.rate.window() {
            return at;
        }
        self.window.expire(now);
        if self.window.fits(cost) {
            return at.max(self.held.min(now));
        }
        self.held = self.window.earliest(cost, at);
        self.held
    }

    fn earliest_behind(&self, ahead: u64, cost: u64, from: Nanos) -> Nanos {
        if cost == 0 {
            return from;
        }
        let at = self.bucket.earliest_behind(ahead, cost, from).max(self.cooldown);
        self.guard().map_or(at, |window| window.earliest_behind(ahead, cost, from).max(at))
    }

    #[inline]
    fn charge(&mut self, cost: u64, due: Nanos, now: Nanos) {
        self.pace.sent(cost);
        if let Some(remote) = &mut self.remote {
            remote.alone.charge(cost, now);
            remote.left.charge(cost, now);
        }
        self.bucket.charge_late(cost, due, now);
        if !self.rate.window() {
            self.window.expire(now);
        }
        self.window.charge(cost, now);
    }

    fn settle(&mut self, charged: u64, actual: u64, charged_at: Nanos, now: Nanos) {
        if actual > charged {
            let debit = actual - charged;
            self.bucket.charge(debit, now);
            self.window.expire(now);
            self.window.charge(debit, now);
        } else if actual < charged && now < charged_at.saturating_add(self.span()) {
            let refund = charged - actual;
            self.bucket.refund(refund, now);
            self.window.refund(refund, charged_at, now);
            self.held = self.held.min(now);
        }
    }

    fn change(&mut self, rate: Rate, jitter: Option<Nanos>, now: Nanos) {
        self.bucket.change(&rate, now);
        self.bucket.set_speed(self.pace.speed(), now);
        self.remote = None; // what was heard is of another limit
        self.window.change(&rate, Self::spread(&rate, jitter));
        self.rate = rate;
    }
}

impl Account {
    /// Whether those who use the same quota leave room for `cost`, as far as the provider's answers tell.
    #[inline]
    fn neighbours_leave(&self, cost: u64, now: Nanos) -> bool {
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
    fn remote_bucket(rate: &Rate, most: u64, now: Nanos) -> Bucket {
        let like = rate.with_burst(most.clamp(1, rate.amount())).unwrap_or(*rate);
        Bucket::new(&like, now)
    }
}

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

/// Whether two periods are the same but for rounding.
fn nearly(one: Nanos, other: Nanos) -> bool {
    one.abs_diff(other) <= other / 50
}

/// The rates of a limiter, charged together or not at all.
#[derive(Clone, Debug)]
pub struct Ledger {
    accounts: Vec<Account>,
    jitter: Option<Nanos>,
    cooldown: Nanos,
    /// Where windows are kept, if not here.
    rings: Vec<Arc<dyn Ring>>,
    /// How often the rates were changed.
    edition: u64,
}

impl Ledger {
    /// A ledger of these rates, all full. `jitter` is the spread of the network's delay in nanoseconds; where it is
    /// not given each rate assumes its own ([`Rate::default_jitter`]).
    pub fn new(rates: &[(Dimension, Rate)], jitter: Option<Nanos>, now: Nanos) -> Self {
        let accounts = rates.iter().map(|&(dimension, rate)| Account::new(dimension, rate, jitter, now)).collect();
        Self { accounts, jitter, cooldown: 0, rings: Vec::new(), edition: 0 }
    }

    /// Keeps the windows in these rings from here on; they must be empty. There is one for each rate that may ever be.
    pub(crate) fn keep_in(&mut self, rings: Vec<Arc<dyn Ring>>) {
        self.rings = rings;
        for (place, account) in self.accounts.iter_mut().enumerate() {
            account.keep_in(&self.rings, place);
        }
    }

    /// Begins to count changes of the rates: no edition is 0, which is that of a ledger that knows of none.
    pub(crate) fn begin_editions(&mut self) {
        self.edition = 1;
    }

    /// The rates as they were configured, in an order that does not depend on how they were written down.
    pub(crate) fn configured(&self) -> Vec<(Dimension, Rate)> {
        let mut rates: Vec<_> = self.accounts.iter().map(|account| (account.dimension, account.configured)).collect();
        rates.sort_by_key(|(dimension, rate)| (*dimension, rate.period(), rate.amount(), rate.burst(), rate.window()));
        rates
    }

    /// Whether both were configured alike.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.jitter == other.jitter && self.configured() == other.configured()
    }

    /// Whether there is a place for as many rates of these dimensions, in place of those that there are.
    pub(crate) fn has_places(&self, changes: &[(Dimension, usize)]) -> bool {
        let fresh = |dimension| changes.iter().rev().find(|(other, _)| *other == dimension).map(|&(_, count)| count);
        let count = |dimension| self.accounts.iter().filter(|account| account.dimension == dimension).count();
        let rates = |dimension| fresh(dimension).unwrap_or_else(|| count(dimension));
        self.rings.is_empty() || Dimension::ALL.into_iter().map(rates).sum::<usize>() <= MOST_RATES
    }

    /// Assumes another spread of the network's delay, for rates that change from here on.
    pub(crate) fn set_jitter(&mut self, jitter: Option<Nanos>) {
        if self.jitter != jitter {
            self.jitter = jitter;
            for account in &mut self.accounts {
                account.change(account.rate, jitter, 0);
            }
        }
    }

    /// The spread of the network's delay, if one was given.
    pub(crate) fn jitter(&self) -> Option<Nanos> {
        self.jitter
    }

    /// How often the rates were changed: what [`Ledger::carry_rates`] carries is the same as long as this is.
    pub(crate) fn edition(&self) -> u64 {
        self.edition
    }

    /// The rates themselves. Gives whether they can be; if not, the ledger is of no use any more.
    pub(crate) fn carry_rates(&mut self, carrier: &mut impl Carrier) -> bool {
        carrier.word(&mut self.edition);
        carrier.perhaps(&mut self.jitter);
        let mut count = self.accounts.len() as u64;
        carrier.word(&mut count);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > MOST_RATES {
            return false;
        }
        self.accounts.truncate(count);
        for place in 0..count {
            let known = self.accounts.get(place);
            let unknown = || Rate::new(1, SECOND).map(|rate| (Dimension::Requests, rate, rate, MOST_RATES));
            let known = known.map(|account| (account.dimension, account.configured, account.rate, account.ring));
            let Some((dimension, mut configured, mut rate, ring)) = known.or_else(|| unknown().ok()) else {
                return false;
            };
            let before = (dimension, configured, rate, ring);
            let (mut number, mut place_of_ring) = (dimension as u64, ring as u64);
            carrier.word(&mut number);
            carrier.word(&mut place_of_ring);
            configured.carry(carrier);
            rate.carry(carrier);
            let dimension = Dimension::ALL.into_iter().find(|&dimension| dimension as u64 == number);
            let ring = usize::try_from(place_of_ring).ok().filter(|&ring| ring < MOST_RATES);
            let (Some(dimension), Some(ring), Some(configured), Some(rate)) =
                (dimension, ring, configured.checked(), rate.checked())
            else {
                return false;
            };
            if before != (dimension, configured, rate, ring) {
                let mut fresh = Account::new(dimension, rate, self.jitter, 0);
                fresh.configured = configured;
                fresh.keep_in(&self.rings, ring);
                if place < self.accounts.len() { self.accounts[place] = fresh } else { self.accounts.push(fresh) }
            }
        }
        true
    }

    /// What is charged, heard and held back.
    #[inline]
    pub(crate) fn carry(&mut self, carrier: &mut impl Carrier) {
        carrier.word(&mut self.cooldown);
        for account in &mut self.accounts {
            account.carry(carrier);
        }
    }

    /// Whether its numbers can be.
    pub(crate) fn is_sound(&self) -> bool {
        self.accounts.iter().all(Account::is_sound)
    }

    /// Counts anew what windows hold, for one who does not know how far another got.
    pub(crate) fn recount(&mut self) {
        for account in &mut self.accounts {
            account.window.recount();
        }
    }

    /// Whether there is no rate at all.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// Whether there is a rate of this dimension.
    pub fn counts(&self, dimension: Dimension) -> bool {
        self.accounts.iter().any(|account| account.dimension == dimension)
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

    /// Whether no wait can satisfy `cost`, and which dimension says so.
    ///
    /// # Errors
    /// [`Oversize`] for the first rate whose amount is below the cost.
    #[inline]
    pub fn check(&self, cost: &Cost) -> Result<(), Oversize> {
        for account in &self.accounts {
            let amount = cost.get(account.dimension);
            if amount > account.rate.amount() {
                let limits = self.accounts.iter().filter(|other| other.dimension == account.dimension);
                let limit = limits.map(|other| other.rate.amount()).min().unwrap_or(0);
                return Err(Oversize { dimension: account.dimension, cost: amount, limit });
            }
        }
        Ok(())
    }

    /// Whether `cost` fits at `now` in every rate.
    #[inline]
    pub fn fits(&mut self, cost: &Cost, now: Nanos) -> bool {
        if now < self.cooldown {
            return false;
        }
        for account in &mut self.accounts {
            let amount = cost.get(account.dimension);
            if amount == 0 {
                continue;
            }
            if now < account.cooldown || !account.bucket.fits(amount, now) || !account.neighbours_leave(amount, now) {
                return false;
            }
            if let Some(window) = account.guard_mut() {
                window.expire(now);
                if !window.fits(amount) {
                    return false;
                }
            }
        }
        true
    }

    /// The time at which a call that has waited since `from` is due: the earliest at which `cost` fits in every rate.
    /// It may lie before `now`, when a timer woke late.
    pub fn due(&mut self, cost: &Cost, from: Nanos, now: Nanos) -> Nanos {
        let mut due = from.max(self.cooldown);
        for account in &mut self.accounts {
            due = due.max(account.due(cost.get(account.dimension), from, now));
        }
        due
    }

    /// The earliest time at which `cost` can leave behind `ahead`, if nothing is given back meanwhile.
    pub fn earliest_behind(&mut self, ahead: &Cost, cost: &Cost, now: Nanos) -> Nanos {
        let mut at = now.max(self.cooldown);
        for account in &mut self.accounts {
            if let Some(window) = account.guard_mut() {
                window.expire(now);
            }
            let (ahead, cost) = (ahead.get(account.dimension), cost.get(account.dimension));
            at = at.max(account.earliest_behind(ahead, cost, now));
        }
        at
    }

    /// Charges `cost` in every rate: the buckets as of `due`, as far as they save up, the guards as of `now`.
    #[inline]
    pub fn charge(&mut self, cost: &Cost, due: Nanos, now: Nanos) {
        for account in &mut self.accounts {
            account.charge(cost.get(account.dimension), due, now);
        }
    }

    /// Replaces a cost that was charged at `charged_at` by the actual one. What was too much is given back into the
    /// window that was charged, if it is not over; what was too little is taken now, into debt if need be.
    pub fn settle(&mut self, charged: &Cost, actual: &Cost, charged_at: Nanos, now: Nanos) {
        for account in &mut self.accounts {
            let (charged, actual) = (charged.get(account.dimension), actual.get(account.dimension));
            account.settle(charged, actual, charged_at, now);
        }
    }

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

    /// The time before which nothing leaves, 0 if there never was one.
    pub fn cooldown(&self) -> Nanos {
        self.cooldown
    }

    /// Replaces the rates of one dimension; no rate means that it is no longer counted. A rate that stays keeps what
    /// was charged to it, wherever it is named; one of the same period goes on from there; then any other.
    pub fn update(&mut self, dimension: Dimension, rates: &[Rate], now: Nanos) {
        let mut fresh = rates.to_vec();
        let mut next: Vec<Option<Rate>> = vec![None; self.accounts.len()];
        let alike: [fn(&Rate, &Rate) -> bool; 3] = [|a, b| a == b, |a, b| a.period() == b.period(), |_, _| true];
        for alike in alike {
            let waiting = self.accounts.iter().zip(&mut next);
            for (account, next) in waiting.filter(|(account, next)| account.dimension == dimension && next.is_none()) {
                let found = fresh.iter().position(|rate| alike(rate, &account.configured));
                *next = found.map(|index| fresh.remove(index));
            }
        }
        let (jitter, rings, mut next) = (self.jitter, &self.rings, next.into_iter());
        self.accounts.retain_mut(|account| {
            let next = next.next().flatten();
            if account.dimension != dimension {
                return true;
            }
            let Some(rate) = next else { return false };
            if rate != account.configured {
                account.configured = rate;
                account.change(rate, jitter, now);
            }
            true
        });
        for rate in fresh {
            let mut account = Account::new(dimension, rate, jitter, now);
            let free = (0..rings.len()).find(|&ring| self.accounts.iter().all(|other| other.ring != ring));
            if free.is_none() && !rings.is_empty() {
                break; // whoever configures rates has asked whether there is a place
            }
            account.keep_in(rings, free.unwrap_or_default());
            self.accounts.push(account);
        }
        self.edition += 1;
    }

    /// How long the slowest rate takes to serve `cost`, in nanoseconds, at least 1: what a call weighs when keys share.
    pub fn service_time(&self, cost: &Cost) -> Nanos {
        let times = self.accounts.iter().map(|account| account.rate.service_time(cost.get(account.dimension)));
        times.max().unwrap_or(0).max(1)
    }

    /// How each rate stands at `now`.
    pub fn levels(&self, now: Nanos) -> Vec<Level> {
        let level = |account: &Account| {
            let paced = account.bucket.available(now);
            let window = account.guard().map_or(account.rate.amount(), |window| window.available(now));
            let available = paced.min(i64::try_from(window).unwrap_or(i64::MAX));
            Level { dimension: account.dimension, rate: account.rate, available, window }
        };
        self.accounts.iter().map(level).collect()
    }

    /// The rates that were configured.
    pub(crate) fn rates(&self) -> Vec<(Dimension, Rate)> {
        self.accounts.iter().map(|account| (account.dimension, account.configured)).collect()
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

    /// What has left and still counts at `now`.
    pub(crate) fn left(&self, now: Nanos) -> Vec<Left> {
        let windows = self.accounts.iter().filter_map(|account| Some((account, account.guard()?)));
        let left = windows.flat_map(|(account, window)| {
            let (dimension, period) = (account.dimension, account.rate.period());
            window.counted(now).map(move |(at, amount)| Left { dimension, period, ago: now.saturating_sub(at), amount })
        });
        left.collect()
    }

    /// Charges what left by another ledger of the same dimensions, when it did.
    pub(crate) fn count_left(&mut self, left: &[Left], now: Nanos) {
        for dimension in Dimension::ALL {
            let of = || left.iter().filter(|left| left.dimension == dimension);
            // Every rate of a dimension saw the same; the one of the longest period remembers most.
            let Some(longest) = of().map(|left| left.period).max() else { continue };
            for &Left { ago, amount, .. } in of().filter(|left| left.period == longest) {
                let at = now.saturating_sub(ago);
                for account in self.accounts.iter_mut().filter(|account| account.dimension == dimension) {
                    account.charge(amount, at, at);
                }
            }
        }
    }

    /// Leaves nothing that could leave at once.
    pub(crate) fn empty(&mut self, now: Nanos) {
        for account in &mut self.accounts {
            account.bucket.set_level(0, now);
        }
    }

    /// Whether the ledger remembers nothing: it could be made anew without a difference.
    pub fn is_idle(&self, now: Nanos) -> bool {
        let idle = |account: &Account| {
            account.bucket.is_full(now) && account.guard().is_none_or(|window| window.is_empty(now))
        };
        self.cooldown <= now && self.accounts.iter().all(idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(amount: u64, seconds: u64) -> Rate {
        Rate::new(amount, seconds * SECOND).unwrap()
    }

    fn ledger() -> Ledger {
        let rates = [
            (Dimension::Requests, rate(60, 60).with_burst(10).unwrap()),
            (Dimension::Tokens, rate(6_000, 60).with_burst(1_000).unwrap()),
        ];
        Ledger::new(&rates, Some(0), 0)
    }

    fn tokens(tokens: u64) -> Cost {
        Cost { requests: 1, tokens, ..Cost::default() }
    }

    #[test]
    fn the_scarcest_dimension_decides_and_nothing_is_half_charged() {
        let mut l = ledger();
        assert!(l.fits(&tokens(1_000), 0));
        l.charge(&tokens(1_000), 0, 0);
        assert!(!l.fits(&tokens(100), 0));
        assert!(l.fits(&tokens(0), 0)); // requests have room, and a call without tokens does not wait for them
        assert_eq!(l.due(&tokens(100), 0, 0), SECOND);
        assert_eq!(l.levels(0)[0].available, 9);
    }

    #[test]
    fn a_cost_beyond_the_smallest_amount_is_told_at_once() {
        let mut l = ledger();
        l.update(Dimension::Tokens, &[rate(6_000, 60), rate(5_000, 86_400)], 0);
        let oversize = l.check(&tokens(5_500)).unwrap_err();
        assert_eq!(oversize, Oversize { dimension: Dimension::Tokens, cost: 5_500, limit: 5_000 });
        assert!(l.check(&tokens(5_000)).is_ok());
    }

    #[test]
    fn settling_refunds_into_the_charged_window_or_debits_now() {
        let mut l = ledger();
        l.charge(&tokens(1_000), 0, 0);
        l.settle(&tokens(1_000), &tokens(400), 0, SECOND);
        assert_eq!(l.levels(SECOND)[1].available, 700);
        assert_eq!(l.levels(SECOND)[1].window, 5_600);
        l.settle(&tokens(400), &tokens(2_400), 0, SECOND);
        assert_eq!(l.levels(SECOND)[1].available, -1_300);
        assert_eq!(l.levels(SECOND)[1].window, 3_600);
        l.settle(&tokens(1_000), &tokens(0), 0, 60 * SECOND); // that window is over
        assert_eq!(l.levels(60 * SECOND)[1].window, 4_000);
    }

    #[test]
    fn a_dropped_rate_no_longer_counts_and_a_new_one_starts_full() {
        let mut l = ledger();
        l.charge(&tokens(1_000), 0, 0);
        l.update(Dimension::Tokens, &[], 0);
        assert!(!l.counts(Dimension::Tokens) && l.fits(&tokens(1_000_000), 0));
        l.update(Dimension::InputTokens, &[rate(100, 60)], 0);
        assert!(l.counts(Dimension::InputTokens));
        assert!(!l.is_idle(0));
        assert!(l.is_idle(61 * SECOND));
    }

    #[test]
    fn a_throttle_empties_the_rate_that_was_short_and_no_other() {
        let day = Rate::new(10_000, 86_400 * SECOND).unwrap().with_burst(10_000).unwrap();
        let minute = rate(600, 60).with_burst(600).unwrap();
        let rates = [(Dimension::Requests, day), (Dimension::Requests, minute)];
        let mut l = Ledger::new(&rates, Some(0), 0);
        let available = |l: &Ledger, at| l.levels(at).iter().map(|level| level.available).collect::<Vec<_>>();
        l.cool_down(SECOND);
        assert_eq!(available(&l, SECOND), [10_000, 600]);
        l.cool_down_in(Dimension::Requests, None, 2 * SECOND, None);
        assert_eq!(available(&l, 2 * SECOND), [10_000, 10]);
        l.cool_down_in(Dimension::Requests, Some(60 * SECOND), 3 * SECOND, Some(50));
        assert_eq!(available(&l, 3 * SECOND), [10_000, 20]);
        l.cool_down_in(Dimension::Requests, Some(86_400 * SECOND), 4 * SECOND, Some(1));
        assert_eq!(available(&l, 4 * SECOND), [1, 30]);
        l.cool_down_in(Dimension::Requests, Some(60 * SECOND), 5 * SECOND, Some(3));
        assert_eq!(available(&l, 5 * SECOND), [1, 3]);
        assert!(!l.fits(&tokens(0), 3 * SECOND));
    }

    #[test]
    fn a_cooldown_is_never_shortened() {
        let mut l = ledger();
        l.cool_down(5 * SECOND);
        l.cool_down(SECOND);
        assert!(!l.fits(&tokens(1), 5 * SECOND - 1));
        assert_eq!(l.due(&tokens(1), 0, 0), 5 * SECOND);
        assert!(l.fits(&tokens(1), 5 * SECOND));
    }
}
