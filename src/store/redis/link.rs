//! Between a gate and the task that asks Redis for it: what is to be told, what was decided, and whom to wake.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::Nanos;
use crate::cost::{Cost, Dimension};
use crate::queue::Ticket;

use super::bell::Bell;
use super::wire::{Ask, Cooldown, Counted, Learned, Left, Limits, Micros, Spent};

/// A settlement, as the gate knows it.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    /// When the call was charged, by the server's clock; nothing if the store was away then.
    pub at: Option<Micros>,
    /// When, by the process's clock.
    pub charged_at: Nanos,
    /// What was charged.
    pub charged: Cost,
    /// What was used.
    pub actual: Cost,
}

/// What a gate has to tell.
#[derive(Debug, Default)]
pub struct Notes {
    /// Who asks to leave, in order.
    pub asks: Vec<(Ticket, Ask)>,
    /// Slots that were taken without the store.
    pub taken: u64,
    /// Slots that were given back.
    pub released: u64,
    /// What calls really used.
    pub settles: Vec<Settled>,
    /// What must not leave for a while.
    pub cooldowns: Vec<Cooldown>,
    /// What left while the store was away.
    pub debit: Cost,
    /// What left before the state was lost.
    pub restores: Vec<Left>,
    /// What was used of rates before they were known.
    pub counted: Vec<Counted>,
    /// What providers said of rates.
    pub learned: Vec<Learned>,
    /// What providers said of a spent quota.
    pub spent: Option<Spent>,
    /// Limits that were changed.
    pub limits: Option<Limits>,
    /// Of which limits `learned` and `limits` were made; nothing where there is neither.
    pub edition: Option<i64>,
}

/// How many settlements are kept for a store that is away.
const MOST_SETTLES: usize = 100_000;

impl Notes {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.asks.is_empty()
            && self.taken == 0
            && self.released == 0
            && self.settles.is_empty()
            && self.cooldowns.is_empty()
            && self.debit.is_free()
            && self.restores.is_empty()
            && self.counted.is_empty()
            && self.learned.is_empty()
            && self.spent.is_none()
            && self.limits.is_none()
    }

    /// So much time has passed since they were taken: what ends has less of it left, or none.
    pub(super) fn age(&mut self, by: Nanos) {
        for cooldown in &mut self.cooldowns {
            cooldown.lasts = cooldown.lasts.saturating_sub(by);
        }
        self.cooldowns.retain(|cooldown| cooldown.lasts > 0);
        // 0 says that the quota is back, which another answer may have said meanwhile: nobody says it for that one.
        self.spent = self.spent.filter(|spent| spent.lasts == 0 || spent.lasts > by);
        if let Some(spent) = self.spent.as_mut() {
            spent.lasts = spent.lasts.saturating_sub(by);
        }
    }

    /// Whether they say that a quota is no longer spent.
    pub(super) fn says_that_it_is_back(&self) -> bool {
        self.spent.is_some_and(|spent| spent.lasts == 0)
    }

    /// These, and then those.
    pub fn append(&mut self, mut later: Self) {
        self.asks.append(&mut later.asks);
        self.taken += later.taken;
        self.released += later.released;
        self.settles.append(&mut later.settles);
        if self.settles.len() > MOST_SETTLES {
            // The oldest are of windows that are over by now.
            self.settles.drain(..self.settles.len() - MOST_SETTLES);
        }
        self.cooldowns.append(&mut later.cooldowns);
        self.debit = self.debit.plus(later.debit);
        self.restores.append(&mut later.restores);
        self.counted.append(&mut later.counted);
        self.learned.retain(|one| !later.learned.iter().any(|other| other.is_of_same(one)));
        self.learned.append(&mut later.learned);
        self.spent = later.spent.or(self.spent);
        self.edition = later.edition.or(self.edition);
        self.limits = match (self.limits.take(), later.limits) {
            (Some(earlier), Some(later)) => {
                let (owned, found) = (earlier.owned.and(later.owned), earlier.found.and(later.found));
                Some(Limits { owned, found: found.without(owned), ..later })
            }
            (earlier, later) => later.or(earlier),
        };
    }
}

/// Why a call that asked comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// It could leave at this time of the process's clock at the earliest.
    Later(Nanos),
    /// Every slot is taken.
    NoSlot,
    /// No wait can satisfy it: the most of this dimension that a call may cost.
    Oversize(Dimension, u64),
    /// Those before it must wait.
    Behind,
    /// Nobody knows: the store went away meanwhile.
    Lost,
}

/// What a gate is told.
#[derive(Debug)]
pub enum Event {
    /// These may leave now, and were charged at these times of the server's clock.
    Granted(Vec<(Ticket, Micros, Ask)>),
    /// These may not yet, in the order in which they asked, and how many of the same batch may.
    Denied(Vec<(Ticket, Denial)>, usize),
    /// Those who wait may ask.
    Ready,
    /// The store is there. How many processes there are, and whether it has lost what was known of calls before.
    Back {
        /// How many processes there are.
        members: u64,
        /// Whether the state was lost.
        lost: bool,
    },
    /// How many processes there are now.
    Members(u64),
    /// The store is away.
    Away {
        /// What happened.
        why: Arc<str>,
        /// Whether it is no outage, but something that only a change of the configuration can mend.
        misconfigured: bool,
    },
    /// These limits hold now, under this number: another process was given others, or has found some out.
    Limits(Limits, i64),
    /// Nothing leaves before this time.
    Cooling(Nanos),
    /// A quota is spent, as another process heard; so it was when a message came that was sent then.
    Spent(Spent, Nanos),
}

#[derive(Debug, Default)]
struct State {
    notes: Notes,
    events: Vec<Event>,
    bells: Vec<Arc<Bell>>,
    closing: bool,
    closed: bool,
}

/// What a gate and its task share.
#[derive(Debug, Default)]
pub struct Link {
    state: Mutex<State>,
    pub(super) wake: Notify,
    ended: parking_lot::Condvar,
}

impl Link {
    /// Tells the task.
    pub fn tell(&self, notes: Notes) {
        if notes.is_empty() {
            return;
        }
        let first = {
            let mut state = self.state.lock();
            let first = state.notes.is_empty();
            state.notes.append(notes);
            first
        };
        // Otherwise it was woken already, and has not looked yet.
        if first {
            self.wake.notify_one();
        }
    }

    /// Says something in the task's place, where there is none.
    pub fn say(&self, event: Event) {
        self.post(vec![event]);
    }

    /// Takes what was decided.
    pub fn collect(&self) -> Vec<Event> {
        std::mem::take(&mut self.state.lock().events)
    }

    /// Whether something was decided that nobody has collected.
    pub fn has_news(&self) -> bool {
        !self.state.lock().events.is_empty()
    }

    /// From here on this bell is rung when something is decided.
    pub fn watch(&self, bell: &Arc<Bell>) {
        self.state.lock().bells.push(Arc::clone(bell));
    }

    /// The bell is no longer rung.
    pub fn unwatch(&self, bell: &Arc<Bell>) {
        let mut state = self.state.lock();
        if let Some(place) = state.bells.iter().position(|other| Arc::ptr_eq(other, bell)) {
            state.bells.swap_remove(place);
        }
    }

    /// The process is done with the limiter: the task says so and ends.
    pub fn close(&self) {
        self.state.lock().closing = true;
        self.wake.notify_one();
    }

    /// Waits until the task has ended, for no longer than until then.
    pub fn wait_closed(&self, until: std::time::Instant) {
        let mut state = self.state.lock();
        while !state.closed {
            if self.ended.wait_until(&mut state, until).timed_out() {
                return;
            }
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.state.lock().closing
    }

    pub(super) fn take_notes(&self) -> Notes {
        std::mem::take(&mut self.state.lock().notes)
    }

    pub(super) fn take_asks(&self) -> Vec<(Ticket, Ask)> {
        std::mem::take(&mut self.state.lock().notes.asks)
    }

    pub(super) fn has_notes(&self) -> bool {
        !self.state.lock().notes.is_empty()
    }

    /// Whether limits are to be told.
    pub(super) fn has_limits(&self) -> bool {
        self.state.lock().notes.limits.is_some()
    }

    /// Whether it is to be told that a quota is no longer spent.
    pub(super) fn has_word_that_it_is_back(&self) -> bool {
        self.state.lock().notes.says_that_it_is_back()
    }

    /// How many slots were taken without the store.
    pub(super) fn taken(&self) -> u64 {
        self.state.lock().notes.taken
    }

    pub(super) fn has_asks(&self) -> bool {
        !self.state.lock().notes.asks.is_empty()
    }

    pub(super) fn post(&self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        state.events.extend(events);
        for bell in &state.bells {
            bell.ring();
        }
    }

    pub(super) fn closed(&self) {
        self.state.lock().closed = true;
        self.ended.notify_all();
    }
}
