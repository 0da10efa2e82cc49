//! Who waits, in what order: priorities, shares between keys, first come first served.
//!
//! Waiters of one key and priority form a *flow*, served first come first served. The flows of one priority share by
//! deficit round robin (Shreedhar and Varghese, 1995), weighted by cost, so that one key's large calls do not starve
//! another's small ones. A higher priority goes first. A flow whose own key may not go on is set aside until it may; it
//! holds nobody else back.
//!
//! Everything is constant time, but for a logarithm in the number of priorities and of flows set aside. A waiter takes
//! 56 bytes plus its payload.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};

use crate::clock::Nanos;
use crate::cost::Cost;

const NONE: u32 = u32::MAX;
/// In the place of the next one: this one was lent out.
const LENT: u32 = u32::MAX - 1;

/// Names a key that waits or holds something; given out by the gate.
pub type KeyId = u32;

/// Names one waiter, and never another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket {
    slot: u32,
    generation: u32,
}

impl Ticket {
    /// The ticket in one word.
    pub fn to_bits(self) -> u64 {
        u64::from(self.slot) << 32 | u64::from(self.generation)
    }

    /// The ticket that [`Ticket::to_bits`] gave that word for.
    pub fn from_bits(bits: u64) -> Self {
        #[allow(clippy::cast_possible_truncation)] // both halves, on purpose
        Self { slot: (bits >> 32) as u32, generation: bits as u32 }
    }
}

/// What the queue knows of a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its name.
    pub ticket: Ticket,
    /// What it will be charged.
    pub cost: Cost,
    /// When it came.
    pub arrived: Nanos,
    /// Whom it belongs to.
    pub key: Option<KeyId>,
    /// Its place among the priorities.
    pub priority: i64,
}

#[derive(Debug)]
struct Entry<T> {
    cost: Cost,
    arrived: Nanos,
    payload: T,
    flow: u32, // NONE: the entry is free
    next: u32,
    prev: u32,
    generation: u32,
}

#[derive(Debug)]
struct Flow {
    priority: i64,
    key: Option<KeyId>,
    head: u32,
    tail: u32,
    len: usize,
    /// How many of it were lent out. It is kept for those.
    lent: usize,
    queued: Cost,
    deficit: u64,
    in_ring: bool,
    aside: bool,
    /// Until when it is set aside, if a time was given.
    until: Option<Nanos>,
    /// Tells a time set for this flow from one set for an earlier flow in its place.
    stamp: u32,
}

#[derive(Debug, Default)]
struct Class {
    ring: VecDeque<u32>,
    /// Whether the flow in front has had its quantum this turn.
    credited: bool,
    /// Turns of this round so far. The quantum changes between rounds only, or turns would not be worth the same.
    turns: usize,
    quantum: u64,
    len: usize,
    /// The cost of those who wait for their turn, and are not set aside.
    queued: Cost,
}

/// The order of those who wait. `T` is whatever the caller needs to find a waiter again.
#[derive(Debug)]
pub struct Queue<T> {
    entries: Vec<Entry<T>>,
    free: u32,
    flows: Vec<Flow>,
    free_flows: Vec<u32>,
    by_name: HashMap<(i64, Option<KeyId>), u32>,
    classes: BTreeMap<Reverse<i64>, Class>,
    aside: BinaryHeap<Reverse<(Nanos, u32, u32)>>,
    /// A running mean of what calls weigh: the quantum of the next round, so that a turn is about one call.
    mean: u64,
    len: usize,
    lent: usize,
}

impl<T: Default> Default for Queue<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            free: NONE,
            flows: Vec::new(),
            free_flows: Vec::new(),
            by_name: HashMap::new(),
            classes: BTreeMap::new(),
            aside: BinaryHeap::new(),
            mean: 0,
            len: 0,
            lent: 0,
        }
    }
}

impl<T: Default> Queue<T> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many of those were lent out.
    pub fn lent(&self) -> usize {
        self.lent
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether nobody waits at this priority or a higher one.
    pub fn is_clear(&self, priority: i64) -> bool {
        self.len == 0 || self.classes.range(..=Reverse(priority)).all(|(_, class)| class.len == 0)
    }

    /// What is served before a newcomer of this key and priority: all of higher priority that are not set aside, and
    /// those of its own flow.
    pub fn ahead(&self, priority: i64, key: Option<KeyId>) -> Cost {
        let higher = self.classes.range(..Reverse(priority)).map(|(_, class)| class.queued);
        higher.fold(self.of_flow(priority, key), Cost::plus)
    }

    /// Whether a newcomer of this key and priority would stand behind others of its flow, so that its coming changes
    /// nothing about who is next.
    pub fn has_flow(&self, priority: i64, key: Option<KeyId>) -> bool {
        self.by_name.get(&(priority, key)).is_some_and(|&flow| self.flows[flow as usize].len > 0)
    }

    /// Takes a waiter in, at the end of its flow.
    pub fn push(&mut self, cost: Cost, arrived: Nanos, priority: i64, key: Option<KeyId>, payload: T) -> Ticket {
        let flow = self.flow(priority, key);
        let entry = Entry { cost, arrived, payload, flow, next: NONE, prev: NONE, generation: 0 };
        let slot = self.place(entry);
        self.link(slot, NONE);
        self.len += 1;
        Ticket { slot, generation: self.entries[slot as usize].generation }
    }

    /// Puts an entry into its flow before another, or at the end.
    fn link(&mut self, slot: u32, next: u32) {
        let (flow, cost) = (self.entries[slot as usize].flow, self.entries[slot as usize].cost);
        let Flow { tail, in_ring, aside, priority, .. } = self.flows[flow as usize];
        let prev = if next == NONE { tail } else { self.entries[next as usize].prev };
        self.entries[slot as usize].prev = prev;
        self.entries[slot as usize].next = next;
        let queued = &mut self.flows[flow as usize];
        if prev == NONE {
            queued.head = slot;
        } else {
            self.entries[prev as usize].next = slot;
        }
        if next == NONE {
            queued.tail = slot;
        } else {
            self.entries[next as usize].prev = slot;
        }
        queued.len += 1;
        queued.queued = queued.queued.plus(cost);
        queued.in_ring = !aside;
        let class = self.classes.entry(Reverse(priority)).or_default();
        if !in_ring && !aside {
            class.ring.push_back(flow);
        }
        class.len += 1;
        if !aside {
            class.queued = class.queued.plus(cost);
        }
    }

    /// Takes the waiter that [`Queue::next`] named out, as served, but for the waiter itself: it still waits, and its place
    /// is decided upon elsewhere. [`Queue::take_back`] puts it back, [`Queue::remove`] ends it.
    pub fn lend(&mut self, ticket: Ticket, weight: impl Fn(&Cost) -> u64) {
        let Some(flow) = self.entry(ticket).filter(|entry| entry.next != LENT).map(|entry| entry.flow) else { return };
        self.credit(ticket, weight);
        self.flows[flow as usize].lent += 1;
        self.lent += 1;
        self.unlink(ticket);
        self.entries[ticket.slot as usize].next = LENT;
    }

    /// Puts a waiter that was lent out back, before all of its flow that came later.
    pub fn take_back(&mut self, ticket: Ticket) {
        let Some(entry) = self.entry(ticket).filter(|entry| entry.next == LENT) else { return };
        let (flow, arrived) = (entry.flow, entry.arrived);
        let mut next = self.flows[flow as usize].head;
        while let Some(other) = self.entries.get(next as usize)
            && other.arrived < arrived
        {
            next = other.next;
        }
        self.flows[flow as usize].lent -= 1;
        self.lent -= 1;
        self.link(ticket.slot, next);
    }

    fn place(&mut self, mut entry: Entry<T>) -> u32 {
        if let Some(free) = self.entries.get_mut(self.free as usize) {
            let slot = self.free;
            self.free = free.next;
            entry.generation = free.generation;
            *free = entry;
            slot
        } else {
            // Growing by a quarter keeps a million waiters from paying for two.
            if self.entries.len() == self.entries.capacity() {
                self.entries.reserve_exact((self.entries.len() / 4).max(64));
            }
            self.entries.push(entry);
            u32::try_from(self.entries.len() - 1).unwrap_or(NONE)
        }
    }

    fn flow(&mut self, priority: i64, key: Option<KeyId>) -> u32 {
        if let Some(&flow) = self.by_name.get(&(priority, key)) {
            return flow;
        }
        let fresh = Flow {
            priority,
            key,
            head: NONE,
            tail: NONE,
            len: 0,
            lent: 0,
            queued: Cost::default(),
            deficit: 0,
            in_ring: false,
            aside: false,
            until: None,
            stamp: 0,
        };
        let flow = if let Some(flow) = self.free_flows.pop() {
            let stamp = self.flows[flow as usize].stamp.wrapping_add(1);
            self.flows[flow as usize] = Flow { stamp, ..fresh };
            flow
        } else {
            self.flows.push(fresh);
            u32::try_from(self.flows.len() - 1).unwrap_or(NONE)
        };
        self.by_name.insert((priority, key), flow);
        flow
    }

    fn entry(&self, ticket: Ticket) -> Option<&Entry<T>> {
        self.entries
            .get(ticket.slot as usize)
            .filter(|entry| entry.generation == ticket.generation && entry.flow != NONE)
    }

    /// The waiter of that name, if it still waits.
    pub fn get(&self, ticket: Ticket) -> Option<Waiting> {
        let entry = self.entry(ticket)?;
        let flow = &self.flows[entry.flow as usize];
        let Entry { cost, arrived, .. } = *entry;
        Some(Waiting { ticket, cost, arrived, key: flow.key, priority: flow.priority })
    }

    /// The payload of a waiter, to look at or to change.
    pub fn payload(&mut self, ticket: Ticket) -> Option<&mut T> {
        self.entry(ticket)?;
        self.entries.get_mut(ticket.slot as usize).map(|entry| &mut entry.payload)
    }

    /// Those who wait and whose payload `pick` picks, in no order.
    pub fn pick(&self, pick: impl Fn(&T) -> bool) -> Vec<Ticket> {
        let picked = |(slot, entry): (usize, &Entry<T>)| {
            let ticket = Ticket { slot: u32::try_from(slot).unwrap_or(NONE), generation: entry.generation };
            (entry.flow != NONE && pick(&entry.payload)).then_some(ticket)
        };
        self.entries.iter().enumerate().filter_map(picked).collect()
    }

    /// All who wait, in no order.
    pub fn iter(&self) -> impl Iterator<Item = Waiting> + '_ {
        let ticket = |(slot, entry): (usize, &Entry<T>)| {
            let slot = u32::try_from(slot).unwrap_or(NONE);
            self.get(Ticket { slot, generation: entry.generation })
        };
        self.entries.iter().enumerate().filter_map(ticket)
    }

    /// Who is next. `weight` says what a cost weighs when flows share (see [`crate::ledger::Ledger::service_time`]).
    /// Asking again without taking gives the same answer.
    pub fn next(&mut self, weight: impl Fn(&Cost) -> u64) -> Option<Waiting> {
        let Self { classes, flows, free_flows, by_name, entries, mean, .. } = self;
        for class in classes.values_mut() {
            let mut visited = 0;
            while let Some(&flow) = class.ring.front() {
                let state = &mut flows[flow as usize];
                if state.len == 0 {
                    class.ring.pop_front();
                    class.credited = false;
                    retire(state, flow, by_name, free_flows);
                    continue;
                }
                let head = &entries[state.head as usize];
                if class.ring.len() > 1 {
                    if !class.credited {
                        if class.turns == 0 {
                            class.quantum = (*mean).max(1);
                        }
                        state.deficit = state.deficit.saturating_add(class.quantum);
                        class.credited = true;
                    }
                    if state.deficit < weight(&head.cost) {
                        class.ring.rotate_left(1);
                        class.credited = false;
                        class.turns = (class.turns + 1) % class.ring.len();
                        visited += 1;
                        if visited >= class.ring.len() {
                            skip_rounds(&class.ring, flows, entries, class.quantum, &weight);
                            visited = 0;
                        }
                        continue;
                    }
                }
                let ticket = Ticket { slot: state.head, generation: head.generation };
                let Entry { cost, arrived, .. } = *head;
                return Some(Waiting { ticket, cost, arrived, key: state.key, priority: state.priority });
            }
        }
        None
    }

    /// Takes the waiter that [`Queue::next`] named out, as served: its flow has used that much of its share.
    pub fn serve(&mut self, ticket: Ticket, weight: impl Fn(&Cost) -> u64) -> Option<T> {
        self.credit(ticket, weight);
        self.remove(ticket)
    }

    fn credit(&mut self, ticket: Ticket, weight: impl Fn(&Cost) -> u64) {
        let Some((flow, cost)) = self.entry(ticket).map(|entry| (entry.flow, entry.cost)) else { return };
        let state = &mut self.flows[flow as usize];
        let shares = self.classes.get(&Reverse(state.priority)).is_some_and(|class| class.ring.len() > 1);
        if shares {
            let weight = weight(&cost);
            state.deficit = state.deficit.saturating_sub(weight);
            self.mean = if self.mean == 0 { weight } else { self.mean - self.mean / 16 + weight / 16 };
        }
    }

    /// Takes a waiter out, wherever it stands. Gives its payload, or nothing if it no longer waits.
    pub fn remove(&mut self, ticket: Ticket) -> Option<T> {
        let entry = self.entry(ticket)?;
        if entry.next == LENT {
            let flow = entry.flow;
            let state = &mut self.flows[flow as usize];
            state.lent -= 1;
            self.lent -= 1;
            if state.len == 0 && !state.in_ring {
                retire(state, flow, &mut self.by_name, &mut self.free_flows);
            }
        } else {
            self.unlink(ticket);
        }
        self.len -= 1;
        let entry = &mut self.entries[ticket.slot as usize];
        let payload = std::mem::take(&mut entry.payload);
        entry.flow = NONE;
        entry.generation = entry.generation.wrapping_add(1);
        entry.next = self.free;
        self.free = ticket.slot;
        if self.len == 0 {
            self.shrink();
        }
        Some(payload)
    }

    /// Takes an entry out of its flow.
    fn unlink(&mut self, ticket: Ticket) {
        let Some(entry) = self.entry(ticket) else { return };
        let (flow, cost, next, prev) = (entry.flow, entry.cost, entry.next, entry.prev);
        let Self { classes, flows, free_flows, by_name, entries, .. } = self;
        let state = &mut flows[flow as usize];
        if prev == NONE {
            state.head = next;
        } else {
            entries[prev as usize].next = next;
        }
        if next == NONE {
            state.tail = prev;
        } else {
            entries[next as usize].prev = prev;
        }
        state.len -= 1;
        state.queued = state.queued.minus(cost);
        let (priority, aside) = (state.priority, state.aside);
        if state.len == 0 {
            // A flow that has run empty saves nothing up. One that stands in the ring leaves it when its turn comes.
            state.deficit = 0;
            if !state.in_ring {
                retire(state, flow, by_name, free_flows);
            }
        }
        if let Some(class) = classes.get_mut(&Reverse(priority)) {
            class.len -= 1;
            if !aside {
                class.queued = class.queued.minus(cost);
            }
            if class.len == 0 {
                for flow in std::mem::take(&mut class.ring) {
                    retire(&mut flows[flow as usize], flow, by_name, free_flows);
                }
                classes.remove(&Reverse(priority));
            }
        }
    }

    /// Gives memory of a rush back. Generations would begin anew with the entries, so they stay; only what a rush of
    /// flows left is dropped.
    fn shrink(&mut self) {
        self.aside.clear();
        self.by_name.shrink_to(64);
    }

    /// Sets the flow of the waiter that is next aside, until a time, or until [`Queue::readmit`] when none is given.
    pub fn set_aside(&mut self, ticket: Ticket, until: Option<Nanos>) {
        let Some(flow) = self.entry(ticket).map(|entry| entry.flow) else { return };
        let state = &mut self.flows[flow as usize];
        let Some(class) = self.classes.get_mut(&Reverse(state.priority)) else { return };
        if class.ring.front() == Some(&flow) {
            class.ring.pop_front();
            class.credited = false;
        } else {
            class.ring.retain(|&other| other != flow);
        }
        class.queued = class.queued.minus(state.queued);
        state.in_ring = false;
        state.aside = true;
        state.until = until;
        state.stamp = state.stamp.wrapping_add(1);
        if let Some(until) = until {
            self.aside.push(Reverse((until, flow, state.stamp)));
        }
    }

    /// Lets the flows that were set aside until `now` or earlier take their turns again.
    pub fn readmit_due(&mut self, now: Nanos) {
        while let Some(&Reverse((until, flow, stamp))) = self.aside.peek() {
            let stale = !self.is_aside(flow, stamp);
            if !stale && until > now {
                break;
            }
            self.aside.pop();
            if !stale {
                self.rejoin(flow);
            }
        }
    }

    /// Lets the flows of a key take their turns again, because something of that key changed.
    pub fn readmit(&mut self, key: KeyId) {
        let flows = self.classes.keys().filter_map(|&Reverse(priority)| self.by_name.get(&(priority, Some(key))));
        let aside: Vec<u32> = flows.copied().filter(|&flow| self.flows[flow as usize].aside).collect();
        for flow in aside {
            self.rejoin(flow);
        }
    }

    /// When the next flow that was set aside may be asked again, and who is first in it.
    pub fn next_readmission(&mut self) -> Option<(Nanos, Ticket)> {
        while let Some(&Reverse((until, flow, stamp))) = self.aside.peek() {
            if self.is_aside(flow, stamp)
                && let Some(first) = self.first(flow)
            {
                return Some((until, first));
            }
            self.aside.pop();
        }
        None
    }

    fn first(&self, flow: u32) -> Option<Ticket> {
        let slot = self.flows.get(flow as usize)?.head;
        self.entries.get(slot as usize).map(|entry| Ticket { slot, generation: entry.generation })
    }

    /// Whether a waiter is the first of a flow that is set aside, and if so, until when.
    pub fn is_first_aside(&self, ticket: Ticket) -> Option<Option<Nanos>> {
        let flow = self.flows.get(self.entry(ticket)?.flow as usize)?;
        (flow.aside && flow.head == ticket.slot).then_some(flow.until)
    }

    /// The cost of those of one key and priority.
    pub fn of_flow(&self, priority: i64, key: Option<KeyId>) -> Cost {
        let flow = self.by_name.get(&(priority, key)).and_then(|&flow| self.flows.get(flow as usize));
        flow.map_or_else(Cost::default, |flow| flow.queued)
    }

    fn is_aside(&self, flow: u32, stamp: u32) -> bool {
        self.flows.get(flow as usize).is_some_and(|state| state.aside && state.stamp == stamp)
    }

    fn rejoin(&mut self, flow: u32) {
        let state = &mut self.flows[flow as usize];
        state.aside = false;
        state.in_ring = true;
        if let Some(class) = self.classes.get_mut(&Reverse(state.priority)) {
            class.ring.push_back(flow);
            class.queued = class.queued.plus(state.queued);
        }
    }
}

/// Forgets a flow in which nobody waits; one of which some are lent out is only put by.
fn retire(state: &mut Flow, flow: u32, by_name: &mut HashMap<(i64, Option<KeyId>), u32>, free: &mut Vec<u32>) {
    state.in_ring = false;
    state.aside = false;
    state.stamp = state.stamp.wrapping_add(1);
    if state.lent == 0 {
        by_name.remove(&(state.priority, state.key));
        free.push(flow);
    }
}

/// A whole round served nobody, because calls weigh many times the quantum. Credits all flows at once with all rounds
/// but the last that the first of them needs.
fn skip_rounds<T>(
    ring: &VecDeque<u32>,
    flows: &mut [Flow],
    entries: &[Entry<T>],
    quantum: u64,
    weight: impl Fn(&Cost) -> u64,
) {
    let missing = |&flow: &u32| {
        let state = &flows[flow as usize];
        let head = entries.get(state.head as usize)?;
        Some(weight(&head.cost).saturating_sub(state.deficit).div_ceil(quantum))
    };
    let rounds = ring.iter().filter_map(missing).min().unwrap_or(0).saturating_sub(1);
    for &flow in ring {
        let state = &mut flows[flow as usize];
        if state.len > 0 {
            state.deficit = state.deficit.saturating_add(rounds.saturating_mul(quantum));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(tokens: u64) -> Cost {
        Cost { requests: 1, tokens, ..Cost::default() }
    }

    fn weight(cost: &Cost) -> u64 {
        cost.tokens.max(1)
    }

    fn serve(queue: &mut Queue<u32>) -> Option<u32> {
        let ticket = queue.next(weight)?.ticket;
        assert_eq!(queue.next(weight).map(|next| next.ticket), Some(ticket));
        queue.serve(ticket, weight)
    }

    #[test]
    fn within_a_flow_the_first_comes_first_and_a_higher_priority_before_all() {
        let mut q = Queue::default();
        for i in 0..4 {
            q.push(cost(1), 0, 0, None, i);
        }
        q.push(cost(1), 0, 5, None, 100);
        q.push(cost(1), 0, -5, None, 200);
        assert!(!q.is_clear(0) && q.is_clear(6));
        let order: Vec<_> = std::iter::from_fn(|| serve(&mut q)).collect();
        assert_eq!(order, [100, 0, 1, 2, 3, 200]);
        assert!(q.is_empty() && q.classes.is_empty() && q.by_name.is_empty());
    }

    #[test]
    fn keys_share_by_cost_whatever_their_calls_are_like() {
        let mut q = Queue::default();
        for _ in 0..2_000 {
            q.push(cost(100), 0, 0, Some(1), 1);
            q.push(cost(4_000), 0, 0, Some(2), 2);
            q.push(cost(700), 0, 0, Some(3), 3);
        }
        let mut used = HashMap::new();
        let mut total = 0;
        while total < 400_000 {
            let next = q.next(weight).unwrap();
            let who = q.serve(next.ticket, weight).unwrap();
            *used.entry(who).or_insert(0) += next.cost.tokens;
            total += next.cost.tokens;
        }
        for (who, used) in used {
            let thousandths = used * 1_000 / total;
            assert!((310..360).contains(&thousandths), "key {who} has {thousandths}");
        }
    }

    #[test]
    fn one_huge_call_among_tiny_ones_is_found_without_counting_rounds_one_by_one() {
        let mut q = Queue::default();
        for i in 0..100 {
            q.push(cost(1), 0, 0, Some(i % 2), i);
        }
        for _ in 0..100 {
            serve(&mut q);
        }
        q.push(cost(Cost::MAX), 0, 0, Some(1), 7);
        q.push(cost(Cost::MAX), 0, 0, Some(2), 8);
        assert!(serve(&mut q).is_some() && serve(&mut q).is_some() && q.is_empty());
    }

    #[test]
    fn a_flow_set_aside_holds_nobody_back_and_keeps_its_order() {
        let mut q = Queue::default();
        let first = q.push(cost(1), 0, 0, Some(1), 1);
        q.push(cost(1), 0, 0, Some(1), 2);
        q.push(cost(1), 0, 0, Some(2), 3);
        assert_eq!(q.next(weight).unwrap().ticket, first);
        q.set_aside(first, Some(50));
        assert_eq!(serve(&mut q), Some(3));
        assert_eq!(serve(&mut q), None);
        q.push(cost(1), 0, 0, Some(1), 4); // joins its flow, aside
        assert_eq!(serve(&mut q), None);
        assert_eq!(q.next_readmission(), Some((50, first)));
        assert_eq!(q.is_first_aside(first), Some(Some(50)));
        q.readmit_due(49);
        assert_eq!(serve(&mut q), None);
        q.readmit_due(50);
        assert_eq!((serve(&mut q), serve(&mut q), serve(&mut q)), (Some(1), Some(2), Some(4)));
        let last = q.push(cost(1), 0, 0, Some(1), 5);
        q.set_aside(last, None);
        assert_eq!((serve(&mut q), q.next_readmission()), (None, None));
        q.readmit(1);
        assert_eq!(serve(&mut q), Some(5));
    }

    #[test]
    fn who_was_lent_out_comes_back_to_its_place_or_ends() {
        let mut q = Queue::default();
        for (arrived, i) in (0..6).enumerate() {
            q.push(cost(1), arrived as Nanos, 0, Some(i % 2), i);
        }
        let take = |q: &mut Queue<u32>| {
            let ticket = q.next(weight).unwrap().ticket;
            q.lend(ticket, weight);
            ticket
        };
        let lent: Vec<_> = (0..6).map(|_| take(&mut q)).collect();
        assert_eq!((q.len(), q.lent(), q.next(weight)), (6, 6, None));
        assert!(q.get(lent[0]).is_some() && q.classes.is_empty());
        q.push(cost(1), 9, 0, Some(1), 9);
        assert_eq!(q.remove(lent[3]), Some(3));
        for &ticket in lent.iter().rev() {
            q.take_back(ticket);
            q.take_back(ticket); // again is harmless
        }
        assert_eq!((q.len(), q.lent()), (6, 0));
        let mut order: Vec<_> = std::iter::from_fn(|| serve(&mut q)).collect();
        let odd: Vec<_> = order.extract_if(.., |i| *i % 2 == 1).collect::<Vec<_>>();
        assert_eq!((order, odd), (vec![0, 2, 4], vec![1, 5, 9]));
        let ticket = q.push(cost(1), 0, 3, Some(7), 7);
        q.lend(ticket, weight);
        assert_eq!(q.remove(ticket), Some(7));
        assert!(q.is_empty() && q.classes.is_empty() && q.by_name.is_empty());
    }

    #[test]
    fn a_ticket_names_one_waiter_only() {
        let mut q = Queue::default();
        let old = q.push(cost(1), 0, 0, None, 1);
        assert_eq!(q.remove(old), Some(1));
        let new = q.push(cost(1), 0, 0, None, 2);
        assert_eq!((q.remove(old), q.get(old)), (None, None));
        assert_eq!(q.payload(new).copied(), Some(2));
        assert_eq!(q.iter().map(|waiting| waiting.ticket).collect::<Vec<_>>(), [new]);
        assert_eq!(q.remove(new), Some(2));
    }

    #[test]
    fn leaving_from_anywhere_keeps_the_order_of_the_rest() {
        let mut q = Queue::default();
        let tickets: Vec<_> = (0..6).map(|i| q.push(cost(2), 0, 0, None, i)).collect();
        for i in [0, 3, 5] {
            q.remove(tickets[i]);
        }
        assert_eq!(q.ahead(0, None), Cost { requests: 3, tokens: 6, ..Cost::default() });
        assert_eq!((serve(&mut q), serve(&mut q), serve(&mut q), serve(&mut q)), (Some(1), Some(2), Some(4), None));
        assert!(!q.has_flow(0, None));
    }
}
