//! Those who wait: who of them leaves when, who has waited for long enough, and when to look again.

use std::cmp::Reverse;

use crate::clock::Nanos;
use crate::cost::Cost;
use crate::queue::{KeyId, Ticket, Waiting};
use crate::store::GRACE;

use super::request::NESTED;
use super::{Admission, Books, Gate, Grant, Outcome, Refusal, Request};

/// When a waiter may leave.
enum Due {
    /// At this time, as far as the shared rates say.
    At(Nanos),
    /// When a slot comes free.
    AfterRelease,
    /// Its key may not go on before this time; others may.
    KeyAt(Nanos),
    /// When a slot of its key comes free; others may go on.
    KeyAfterRelease,
}

impl<T: Default> Gate<T> {
    pub(super) fn wait(&mut self, now: Nanos, request: &Request<'_>, settled: &mut Vec<(T, Outcome)>) -> Admission {
        if self.is_linked() {
            return self.wait_remote(now, request);
        }
        let (cost, priority) = (request.cost.clamped(), request.place());
        let key = self.key(request, now);
        if let Some(timeout) = request.timeout {
            let wait = self.least_wait(&cost, priority, key, now);
            if wait > timeout {
                self.books.counts.timeouts += 1;
                self.forget(key, now);
                return Admission::Refused(Refusal::Timeout(wait));
            }
        }
        // Behind others of its flow a newcomer changes nothing about who is next. Otherwise it may be able to leave at
        // once, though others wait, so a full queue refuses it only then.
        let follows = self.queue.has_flow(priority, key);
        let waiting = self.queue.len();
        if waiting == 0 {
            self.books.turn.join();
        }
        let may_wait = waiting < self.max_waiting && request.timeout != Some(0);
        let ticket = self.queue.push(cost, now, priority, key, T::default());
        if let Some(state) = key.and_then(|key| self.keys.get(key)) {
            state.waiting += 1;
        }
        if let Some(timeout) = request.timeout.filter(|&timeout| timeout > 0) {
            self.deadlines.push(Reverse((now.saturating_add(timeout), ticket)));
        }
        let own = if follows { None } else { self.serve(now, Some(ticket), settled) };
        match own {
            Some(grant) => Admission::Granted(grant),
            None if may_wait => Admission::Queued(ticket),
            None => {
                self.leave(ticket, now);
                if !follows {
                    // It may have stood in front.
                    self.serve(now, None, settled);
                }
                Admission::Refused(if request.timeout == Some(0) {
                    self.books.counts.timeouts += 1;
                    Refusal::Timeout(self.least_wait(&cost, priority, key, now))
                } else {
                    self.books.counts.refused += 1;
                    Refusal::QueueFull(waiting)
                })
            }
        }
    }

    /// How long a newcomer would wait at the least, as far as rates tell: nobody knows when a slot comes free.
    pub(super) fn least_wait(&mut self, cost: &Cost, priority: i64, key: Option<KeyId>, now: Nanos) -> Nanos {
        let ahead = self.queue.ahead(priority, key);
        let shared = self.books.ledger.earliest_behind(&ahead, cost, now);
        let own = key.and_then(|key| self.keys.get(key)?.ledger.as_mut()).map_or(now, |ledger| {
            // Of those ahead only its own flow is charged to this key; higher priorities may be another's.
            ledger.earliest_behind(&Cost::default(), cost, now)
        });
        shared.max(own).saturating_sub(now)
    }

    /// Admits all who may leave by now, and expires those whose time to wait is over. `settled` takes what became of
    /// each.
    pub fn pump(&mut self, now: Nanos, settled: &mut Vec<(T, Outcome)>) {
        if self.queue.is_empty() {
            self.head_due = None;
            return;
        }
        self.decide(now, |gate, now| {
            gate.serve(now, None, settled);
            if gate.expire(now, settled) {
                // Who was next may have been among them.
                gate.serve(now, None, settled);
            }
        });
    }

    /// Admits all who may leave. Gives the grant of `newcomer` if it is among them; all others go to `settled`.
    pub(super) fn serve(
        &mut self,
        now: Nanos,
        newcomer: Option<Ticket>,
        settled: &mut Vec<(T, Outcome)>,
    ) -> Option<Grant> {
        let mut own = None;
        if self.news != self.books.news || self.books.broken.is_some() {
            self.tell_news(now, settled);
        }
        if self.is_linked() {
            self.head_due = None;
            return None;
        }
        self.queue.readmit_due(now);
        self.head_due = loop {
            let Self { queue, books: Books { ledger, .. }, .. } = self;
            let Some(next) = queue.next(|cost| ledger.service_time(cost)) else { break None };
            match self.due(&next, now) {
                Due::At(due) if due <= now && !self.comes_first(&next) => break Some(now.saturating_add(GRACE)),
                Due::At(due) if due <= now => {
                    let (payload, grant) = self.admit_waiting(&next, due, now);
                    if Some(next.ticket) == newcomer {
                        own = Some(grant);
                    } else {
                        settled.push((payload, Ok(grant)));
                    }
                }
                Due::At(due) => break Some(self.due_behind_rivals(&next, due, now)),
                Due::AfterRelease => break None,
                Due::KeyAt(due) => self.queue.set_aside(next.ticket, Some(due)),
                Due::KeyAfterRelease => self.queue.set_aside(next.ticket, None),
            }
        };
        own
    }

    /// Whether the waiter that is next goes before those who wait at other gates.
    #[inline]
    fn comes_first(&self, next: &Waiting) -> bool {
        next.priority >= NESTED / 2 || self.books.turn.is_own(true)
    }

    /// When the waiter that is next should look: when it is due, or when those at other gates that come first have left,
    /// which are taken to be like it.
    fn due_behind_rivals(&mut self, next: &Waiting, due: Nanos, now: Nanos) -> Nanos {
        if self.books.turn.rivals.is_empty() || self.comes_first(next) {
            return due;
        }
        let times = |amount: u64| amount.saturating_mul(self.books.turn.rank());
        let Cost { requests, tokens, input_tokens, output_tokens } = next.cost;
        let ahead = Cost {
            requests: times(requests),
            tokens: times(tokens),
            input_tokens: times(input_tokens),
            output_tokens: times(output_tokens),
        };
        self.books.ledger.earliest_behind(&ahead, &next.cost, now).max(due)
    }

    /// Tells those who wait what was changed by other gates and concerns them.
    #[cold]
    fn tell_news(&mut self, now: Nanos, settled: &mut Vec<(T, Outcome)>) {
        self.news = self.books.news;
        if let Some(why) = self.books.broken {
            for ticket in self.queue.pick(|_| true) {
                if let Some(payload) = self.leave(ticket, now) {
                    settled.push((payload, Err(Refusal::Store(why))));
                }
            }
            return;
        }
        self.fail_hopeless(now, settled);
        if let Some(spent) = self.books.spent.filter(|spent| now < spent.until) {
            self.fail_all(spent.exhausted, now, settled);
        }
    }

    /// When the waiter that is next may leave.
    fn due(&mut self, next: &Waiting, now: Nanos) -> Due {
        if self.is_open() {
            return Due::At(now);
        }
        let nested = next.priority >= NESTED / 2;
        let mut from = next.arrived;
        if let Some(key) = next.key {
            let concurrency = self.keys.concurrency();
            if let Some(state) = self.keys.get(key)
                && let Some(ledger) = &mut state.ledger
            {
                if !nested {
                    if state.slots >= concurrency {
                        return Due::KeyAfterRelease;
                    }
                    from = from.max(state.slot_freed);
                }
                let due = ledger.due(&next.cost, from, now);
                if due > now {
                    return Due::KeyAt(due);
                }
                from = due;
            }
        }
        if !nested && self.books.slots >= self.books.slots_now() {
            return Due::AfterRelease;
        }
        // Who waited for a slot was not due before it came free, nor before those ahead gave up.
        from = from.max(self.held_up).max(self.books.slot_freed);
        Due::At(self.books.ledger.due(&next.cost, from, now))
    }

    fn admit_waiting(&mut self, next: &Waiting, due: Nanos, now: Nanos) -> (T, Grant) {
        let Self { queue, books: Books { ledger, .. }, .. } = self;
        let payload = queue.serve(next.ticket, |cost| ledger.service_time(cost)).unwrap_or_default();
        let waited = now.saturating_sub(next.arrived);
        if waited > 0 {
            match &self.store {
                Some(store) => store.record(waited),
                None => self.waits.record(waited),
            }
        }
        let nested = next.priority >= NESTED / 2;
        if let Some(state) = next.key.and_then(|key| self.keys.get(key)) {
            state.waiting -= 1;
        }
        let grant = self.grant(next.cost, next.key, !nested, due, now, waited);
        if grant.key.is_none() {
            self.forget(next.key, now);
        }
        (payload, grant)
    }

    /// Ends the waits whose time is over; tells whether there were any.
    fn expire(&mut self, now: Nanos, settled: &mut Vec<(T, Outcome)>) -> bool {
        let mut expired = false;
        while let Some(&Reverse((deadline, ticket))) = self.deadlines.peek() {
            if deadline > now {
                // Those who left earlier are still listed; not too many of them.
                if self.deadlines.len() > 2 * self.queue.len() + 64 {
                    let Self { queue, deadlines, .. } = self;
                    deadlines.retain(|&Reverse((_, ticket))| queue.get(ticket).is_some());
                }
                break;
            }
            self.deadlines.pop();
            let Some(waiting) = self.queue.get(ticket) else { continue };
            let wait = self.books.ledger.earliest_behind(&Cost::default(), &waiting.cost, now).saturating_sub(now);
            let wait = self.as_told(wait, now);
            if let Some(payload) = self.leave(ticket, now) {
                self.books.counts.timeouts += 1;
                settled.push((payload, Err(Refusal::Timeout(wait))));
                expired = true;
            }
        }
        expired
    }

    /// When [`Gate::pump`] may next set someone free without anything being given back; never, if nothing is said.
    pub fn next_event(&mut self) -> Option<Nanos> {
        if self.queue.is_empty() {
            return None;
        }
        // Those who left earlier are still listed; nobody is to be woken for them.
        while let Some(&Reverse((_, ticket))) = self.deadlines.peek()
            && self.queue.get(ticket).is_none()
        {
            self.deadlines.pop();
        }
        let deadline = self.deadlines.peek().map(|&Reverse((deadline, _))| deadline);
        let readmission = self.queue.next_readmission().map(|(at, _)| at);
        [self.head_due, readmission, deadline].into_iter().flatten().min()
    }

    /// The payload of a waiter, to look at or to change.
    pub fn payload(&mut self, ticket: Ticket) -> Option<&mut T> {
        self.queue.payload(ticket)
    }

    /// Takes someone who waits out. Gives nothing if that call no longer waits: its outcome is under way then.
    pub fn cancel(&mut self, now: Nanos, ticket: Ticket) -> Option<T> {
        self.decide(now, |gate, now| {
            let payload = gate.leave(ticket, now)?;
            gate.books.counts.cancelled += 1;
            Some(payload)
        })
    }

    /// Those who wait and whose payload `pick` picks, to be cancelled one by one.
    pub fn pick(&self, pick: impl Fn(&T) -> bool) -> Vec<Ticket> {
        self.queue.pick(pick)
    }

    pub(super) fn leave(&mut self, ticket: Ticket, now: Nanos) -> Option<T> {
        let key = self.queue.get(ticket)?.key;
        let payload = self.queue.remove(ticket)?;
        if let Some(remote) = &mut self.remote {
            remote.forget(ticket);
        }
        self.hold_up(now);
        if !self.books.turn.rivals.is_empty() {
            self.call(); // those who come after it come earlier
        }
        if let Some(state) = key.and_then(|key| self.keys.get(key)) {
            state.waiting -= 1;
        }
        self.forget(key, now);
        Some(payload)
    }

    /// Who is next changes without anyone leaving: nobody who waits was due before that, or, if the pump is late, before
    /// the one that was next. Or what they could not use meanwhile would leave in one burst.
    pub(super) fn hold_up(&mut self, now: Nanos) {
        self.held_up = self.held_up.max(self.head_due.map_or(now, |due| due.min(now)));
    }

    /// The waiters that must wake by a time for anyone to leave then, each with that time: the one that is next, if it
    /// waits for a time and not for a release, and the first of the key that may be asked again next.
    pub fn sentinels(&mut self) -> [Option<(Nanos, Ticket)>; 2] {
        let Self { queue, books: Books { ledger, .. }, .. } = self;
        let next = self.head_due.and_then(|due| Some((due, queue.next(|cost| ledger.service_time(cost))?.ticket)));
        [next, queue.next_readmission()]
    }

    /// When a waiter leaves if nothing is given back meanwhile and nobody comes before it: exact for the last of those of
    /// one key and priority, if no others wait. Who becomes a sentinel earlier or later than this is to be told.
    pub fn estimate(&mut self, now: Nanos, ticket: Ticket) -> Option<Nanos> {
        let now = self.tick(now);
        let waiting = self.queue.get(ticket)?;
        let ahead = self.queue.ahead(waiting.priority, waiting.key).minus(waiting.cost);
        let shared = self.books.ledger.earliest_behind(&ahead, &waiting.cost, now);
        let own = self.queue.of_flow(waiting.priority, waiting.key).minus(waiting.cost);
        let ledger = waiting.key.and_then(|key| self.keys.get(key)?.ledger.as_mut());
        Some(ledger.map_or(shared, |ledger| shared.max(ledger.earliest_behind(&own, &waiting.cost, now))))
    }

    /// When a waiter should be looked after: its due time if it is the next, when its key may be asked again if it is the
    /// first of that, and what [`Gate::estimate`] says otherwise; nothing if only an event can set it free.
    pub fn expected(&mut self, now: Nanos, ticket: Ticket) -> Option<Nanos> {
        let Self { queue, books: Books { ledger, .. }, .. } = self;
        if let Some(until) = queue.is_first_aside(ticket) {
            return until;
        }
        if self.remote.as_ref().is_some_and(|remote| remote.is_linked()) {
            return None;
        }
        if queue.next(|cost| ledger.service_time(cost)).is_some_and(|next| next.ticket == ticket) {
            return self.head_due;
        }
        self.estimate(now, ticket).filter(|&at| at > now)
    }
}
