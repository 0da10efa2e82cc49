//! What of a ledger others take over, who keep it in the memory of several processes or at a distance.

use std::sync::Arc;

use crate::bucket::Bucket;
use crate::clock::{Nanos, SECOND};
use crate::cost::Dimension;
use crate::rate::Rate;
use crate::window::Ring;
use crate::words::Carrier;

use super::Ledger;
use super::account::Account;
use super::answers::Remote;

/// How many rates a ledger may have that is kept outside of this process's memory.
pub(crate) const MOST_RATES: usize = 16;

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

impl Account {
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
}

impl Ledger {
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
}
