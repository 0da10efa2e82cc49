//! Whose turn it is when gates of several processes wait for the same rates.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, 1996): every gate's next call begins, in virtual time, where its last
//! one ended, and who begins first goes first. Virtual time is what the slowest rate needs to serve what was served. A
//! gate may run ahead of others by a moment's worth, so that at high rates turns are not changed for every call; and it
//! waits only for those who come: one that looks later than it said is passed over, and has its turn when it is back.

use crate::clock::{Nanos, SECOND};

/// By how much a gate may run ahead of others who wait.
const AHEAD: u64 = SECOND / 100;
/// How much later than it said a gate may look without being passed over.
pub(crate) const GRACE: Nanos = SECOND / 100;
/// What a gate that was passed over may make up for.
const CREDIT: u64 = SECOND / 2;
/// How long a gate may have no call that waits without losing that: a few threads come back a moment after they left.
const AWAY: Nanos = SECOND / 20;
/// What a call weighs at the least that takes the last slot, or where there is no rate.
const SLOT: u64 = AHEAD / 4;

/// The turns of one gate, as of when the books were opened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turn {
    /// The virtual time: where the call began that was served last.
    pub(crate) clock: u64,
    /// Where this gate's next call begins.
    pub(crate) own: u64,
    /// Where those of the others begin that wait and come.
    pub(crate) rivals: Vec<u64>,
    /// When a call of this gate was served last while others waited.
    served_at: Nanos,
    /// Whether that was a moment ago.
    is_back: bool,
}

impl Turn {
    /// Where the next call begins: one that waited saves up a little, and one that did not nothing.
    fn start(&self, waited: bool) -> u64 {
        self.own.max(if waited || self.is_back { self.clock.saturating_sub(CREDIT) } else { self.clock })
    }

    /// A decision begins.
    pub(crate) fn begin(&mut self, now: Nanos) {
        self.is_back = now < self.served_at.saturating_add(AWAY);
    }

    /// A call waits where none did: it saves nothing up, unless one was served a moment ago.
    pub(crate) fn join(&mut self) {
        self.own = self.start(false);
    }

    /// Another gate waits whose next call begins there. What is said of this gate is said of that one, too, or both
    /// would wait for each other.
    pub(crate) fn meet(&mut self, begins: u64) {
        self.rivals.push(begins.max(self.clock.saturating_sub(CREDIT)));
    }

    /// Whether this gate may go before all others that wait.
    #[inline]
    pub(crate) fn is_own(&self, waited: bool) -> bool {
        self.rivals.is_empty() || {
            let start = self.start(waited);
            self.rivals.iter().all(|rival| start <= rival.saturating_add(AHEAD))
        }
    }

    /// How many others come first.
    pub(crate) fn rank(&self) -> u64 {
        let start = self.start(true);
        self.rivals.iter().filter(|&&rival| rival < start).count() as u64
    }

    /// A call was served that the slowest rate needs this time for; nothing if there is none. Where slots are what is
    /// short it weighs no less than a slot: at high rates nobody's turn would come, however many slots others took.
    #[inline]
    pub(crate) fn served(&mut self, waited: bool, service: Option<u64>, last_slot: bool, now: Nanos) {
        self.served_at = now;
        let start = self.start(waited);
        self.clock = self.clock.max(start);
        let least = if last_slot { SLOT } else { 0 };
        self.own = start.saturating_add(service.map_or(SLOT, |service| service.max(least)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_served_waits_for_those_who_were_not() {
        let mut turn = Turn { rivals: vec![0, 0], ..Turn::default() };
        assert!(turn.is_own(true) && turn.rank() == 0);
        turn.served(true, Some(SECOND / 50), false, 0);
        assert!(!turn.is_own(true) && turn.rank() == 2);
        turn.rivals = vec![SECOND / 50, SECOND / 50];
        assert!(turn.is_own(true));
    }

    #[test]
    fn at_high_rates_a_gate_is_served_many_times_in_its_turn() {
        let mut turn = Turn { rivals: vec![0], ..Turn::default() };
        let mut served = 0;
        while turn.is_own(true) {
            turn.served(true, Some(SECOND / 100_000), false, 0);
            served += 1;
        }
        assert_eq!(served, 1_001);
    }

    #[test]
    fn where_slots_are_short_turns_change_at_any_rate() {
        for service in [Some(1), None, Some(SLOT)] {
            let mut turn = Turn { rivals: vec![0], ..Turn::default() };
            let mut served = 0;
            while turn.is_own(true) {
                turn.served(true, service, true, 0);
                served += 1;
            }
            assert_eq!(served, 5, "{service:?}");
        }
    }

    #[test]
    fn nobody_saves_up_while_away() {
        let mut turn = Turn { clock: 100 * SECOND, own: SECOND, ..Turn::default() };
        turn.begin(AWAY);
        assert_eq!((turn.start(false), turn.start(true)), (100 * SECOND, 100 * SECOND - CREDIT));
        turn.meet(2 * SECOND); // has been away for as long
        assert!(turn.is_own(true) && !turn.is_own(false));
        turn.meet(100 * SECOND);
        assert!(turn.is_own(true) && turn.rank() == 0);
        turn.served_at = SECOND;
        turn.begin(SECOND + AWAY - 1); // back in a moment
        assert_eq!(turn.start(false), turn.start(true));
    }
}
