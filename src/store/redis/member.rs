//! One limiter's task: sends what its gate has to tell, in batches, and brings back what was decided when it is time.
//!
//! What arrives while a batch is under way travels in the next. A batch leaves at once when none is under way, and
//! otherwise after a pause that is short against the trip, so that a far server costs each call one trip as well.
//!
//! A call that may leave in a moment is kept here until then: nobody wakes for it before. The times of the server's
//! clock are mapped to the process's so that an error can only be late, never early.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::{PushInfo, PushKind};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use crate::clock::{self, Nanos, SECOND};
use crate::cost::Cost;
use crate::queue::Ticket;

use super::address::Address;
use super::client::{Failure, Session};
use super::link::{Denial, Event, Link, Notes, Settled};
use super::wire::{Answer, Ask, Decision, Done, Limits, Message, Micros, Settle};
use super::{channel, key, thread};

/// For how long a process counts as alive that says nothing.
const LEASE: Nanos = 10 * SECOND;
/// How often it says that it is.
const HEARTBEAT: Nanos = 5 * SECOND / 2;
/// How many batches may be under way at once.
const UNDER_WAY: usize = 64;
/// The least pause between two batches that are under way together.
const PAUSE: Nanos = SECOND / 1_000;
/// How long what nobody waits for waits for others to travel with.
const LINGER: Nanos = SECOND / 500;
/// How far ahead calls are admitted at the least and at the most: enough to ask again before that is over.
const HORIZON: (Nanos, Nanos) = (SECOND / 10, SECOND);
/// How far ahead the first of a batch is admitted at the most.
const REACH: (Nanos, Nanos) = (2 * SECOND, 120 * SECOND);
/// The pauses between attempts to connect, at first and at the most. Together with an attempt that hangs until it is given up
/// the longest stays below the two seconds in which a limiter is back.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// How long a process that ends waits for its goodbye.
const GOODBYE: Duration = Duration::from_millis(500);

/// Calls that wait for a slot ask again after this time, though nobody told them that one is free: whoever was told before
/// them may be dead.
const AGAIN: Nanos = SECOND / 2;
/// A process that was told that a slot is free keeps its place for this long until its calls ask: as the script does.
const GRACE: Nanos = 3 * SECOND / 10;

/// The settlements of an outage travel in pieces.
const MOST_AT_ONCE: usize = 2_000;

/// What left while the store was away is told in pieces of so long, and in no more than so many.
const PIECE: Nanos = SECOND / 4;
const MOST_PIECES: usize = 1_000;

/// What a task is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The limiter's name.
    pub limiter: String,
    /// Its limits.
    pub limits: Limits,
    /// Where its store is.
    pub address: Address,
}

/// Starts the task of a limiter.
///
/// # Errors
/// When the system gives no thread.
pub fn start(setup: Setup) -> io::Result<Arc<Link>> {
    let link = Arc::new(Link::default());
    let (member, outlives) = (Member::new(setup, Arc::clone(&link)), Arc::clone(&link));
    thread::spawn(async move {
        // Nobody may wait for a task that is no more, whatever became of it.
        if tokio::spawn(member.run()).await.is_err() {
            outlives.say(Event::Away {
                why: "its task has ended: this is a mistake of Penstock's".into(),
                misconfigured: false,
            });
            outlives.closed();
        }
    })?;
    Ok(link)
}

/// A call that may leave at a time to come, in the order of those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scheduled {
    due: Nanos,
    ticket: Ticket,
    at: Micros,
    ask: Ask,
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.ticket).cmp(&(other.due, other.ticket))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The pauses between attempts to connect: each twice as long as the one before.
#[derive(Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let pause = BACKOFF.0.saturating_mul(1 << self.failures.min(16)).min(BACKOFF.1);
        self.failures = self.failures.saturating_add(1);
        pause
    }
}

/// A message under way.
struct Batch {
    asks: Vec<(Ticket, Ask)>,
    /// What is told again if nobody knows whether it came.
    again: Notes,
    debits: Vec<(Nanos, Cost)>,
    sent: Nanos,
}

type Returned = (u64, Result<Vec<i64>, Failure>);

#[allow(clippy::struct_excessive_bools)] // independent facts
struct Member {
    link: Arc<Link>,
    setup: Setup,
    key: Arc<str>,
    process: String,
    epoch: u64,
    /// Whether the servers know this process under its epoch.
    registered: bool,
    /// Whether the limits are news.
    fresh_limits: bool,
    /// Which limits were told to the gate.
    edition: i64,
    /// The state that was seen last.
    born: Option<Micros>,
    held: u64,
    released: u64,
    /// What is to be told and is not in the link any more, and as of when.
    notes: Notes,
    noted_at: Nanos,
    /// What left while the store was away: when, and how much.
    debits: Vec<(Nanos, Cost)>,
    /// Since when it has been away.
    away_since: Option<Nanos>,
    clocks: Clocks,
    trip: Nanos,
    scheduled: BinaryHeap<Reverse<Scheduled>>,
    /// When those who wait may ask again.
    ready_at: Option<Nanos>,
    /// Until when calls count as waiting for a slot: without an end as long as nobody has told them that one is free.
    in_line: Option<Nanos>,
    /// Whether it was told that a slot is free since it last asked.
    told: bool,
    /// Whether slots are short: then one batch at a time asks, or who comes later would get what comes free meanwhile.
    careful: bool,
    away: bool,
    sent_at: Nanos,
    next: u64,
    under_way: HashMap<u64, Batch>,
    last_members: u64,
}

impl Member {
    fn new(setup: Setup, link: Arc<Link>) -> Self {
        let random = RandomState::new().hash_one(std::process::id());
        Self {
            link,
            key: key(&setup.limiter).into(),
            setup,
            process: format!("{:x}-{random:x}", std::process::id()),
            epoch: 0,
            registered: false,
            fresh_limits: true,
            edition: 0,
            born: None,
            held: 0,
            released: 0,
            notes: Notes::default(),
            noted_at: 0,
            debits: Vec::new(),
            away_since: None,
            clocks: Clocks::default(),
            trip: 0,
            scheduled: BinaryHeap::new(),
            ready_at: None,
            in_line: None,
            told: false,
            careful: false,
            away: false,
            sent_at: 0,
            next: 0,
            under_way: HashMap::new(),
            last_members: 0,
        }
    }

    async fn run(mut self) {
        let mut backoff = Backoff::default();
        while !self.link.is_closing() {
            let (address, key) = (self.setup.address.clone(), Arc::clone(&self.key));
            let channel = channel(&self.setup.limiter, &self.process);
            let connecting = async move { Session::connect(&address, &key, &channel).await };
            let failure = match self.meanwhile(connecting).await {
                None => break,
                Some(Ok((session, pushed))) => {
                    let before = self.epoch;
                    let failure = self.serve(session, pushed).await;
                    if self.epoch > before && self.registered {
                        backoff = Backoff::default();
                    }
                    failure
                }
                Some(Err(failure)) => Some(failure),
            };
            let Some(failure) = failure else { break };
            self.lose(&failure);
            if self.meanwhile(tokio::time::sleep(backoff.next())).await.is_none() {
                break;
            }
        }
        self.link.closed();
    }

    /// Waits for something, and meanwhile gives back what is asked, if the store is known to be away. Nothing when the
    /// limiter is closed.
    async fn meanwhile<R>(&mut self, what: impl Future<Output = R>) -> Option<R> {
        tokio::pin!(what);
        let link = Arc::clone(&self.link);
        loop {
            if link.is_closing() {
                return None;
            }
            tokio::select! {
                done = &mut what => return Some(done),
                () = link.wake.notified() => if self.away {
                    self.take_notes();
                    self.note_debit();
                    self.give_back_asks();
                },
            }
        }
    }

    /// Takes up what the gate has to tell. What is left from before has waited meanwhile.
    fn take_notes(&mut self) {
        let now = clock::now();
        self.notes.age(now.saturating_sub(self.noted_at));
        self.noted_at = now;
        self.notes.append(self.link.take_notes());
    }

    /// Notes when it was that something left without the store.
    fn note_debit(&mut self) {
        let (now, cost) = (clock::now(), std::mem::take(&mut self.notes.debit));
        if cost.is_free() {
            return;
        }
        match self.debits.last_mut() {
            // As of the last of them: it counts for too long rather than not for long enough.
            Some((at, of)) if now < at.saturating_add(PIECE) => *of = of.plus(cost),
            _ => self.debits.push((now, cost)),
        }
        if self.debits.len() > MOST_PIECES {
            let pairs = self.debits.chunks(2).filter_map(|pair| {
                let all = pair.iter().fold(Cost::default(), |sum, (_, cost)| sum.plus(*cost));
                pair.last().map(|&(at, _)| (at, all))
            });
            self.debits = pairs.collect();
        }
    }

    fn give_back_asks(&mut self) {
        let denied: Vec<_> = self.notes.asks.drain(..).map(|(ticket, _)| (ticket, Denial::Lost)).collect();
        if !denied.is_empty() {
            self.link.post(vec![Event::Denied(denied, 0)]);
        }
    }

    /// The store is away: whoever asked comes back, and so does what was to leave in a moment.
    fn lose(&mut self, failure: &Failure) {
        self.take_notes();
        let mut denied = Vec::new();
        let mut under_way: Vec<_> = self.under_way.drain().collect();
        under_way.sort_by_key(|(id, _)| *id);
        let mut again = Notes::default();
        for (_, mut batch) in under_way {
            denied.extend(batch.asks.iter().map(|(ticket, _)| (*ticket, Denial::Lost)));
            batch.again.age(self.noted_at.saturating_sub(batch.sent));
            again.append(batch.again);
            self.debits.splice(0..0, batch.debits);
        }
        again.append(std::mem::take(&mut self.notes));
        self.notes = again;
        self.note_debit();
        self.away_since.get_or_insert_with(clock::now);
        self.unschedule(&mut denied);
        (self.registered, self.ready_at, self.in_line, self.told) = (false, None, None, false);
        denied.extend(self.notes.asks.drain(..).map(|(ticket, _)| (ticket, Denial::Lost)));
        let mut events = if denied.is_empty() { Vec::new() } else { vec![Event::Denied(denied, 0)] };
        if !self.away {
            self.away = true;
            let Failure { why, misconfigured } = failure.clone();
            events.push(Event::Away { why, misconfigured: misconfigured && self.born.is_none() });
        }
        self.link.post(events);
    }

    /// Gives back what was to leave in a moment.
    fn unschedule(&mut self, denied: &mut Vec<(Ticket, Denial)>) {
        for Reverse(next) in std::mem::take(&mut self.scheduled).into_sorted_vec().into_iter().rev() {
            let Scheduled { due, at, ask, .. } = next;
            let actual = Cost::default();
            self.notes.settles.push(Settled { at: Some(at), charged_at: due, charged: ask.cost, actual });
            self.notes.released += u64::from(ask.slot);
            denied.push((next.ticket, Denial::Lost));
        }
    }

    /// The limits are others: those who were to leave in a moment may leave sooner now, or must later.
    fn ask_anew(&mut self) {
        let mut denied = Vec::new();
        self.unschedule(&mut denied);
        if !denied.is_empty() {
            self.link.post(vec![Event::Denied(denied, 0)]);
        }
    }

    /// Talks to the servers until something fails; nothing when the limiter is closed.
    async fn serve(&mut self, session: Session, mut pushed: UnboundedReceiver<PushInfo>) -> Option<Failure> {
        let mut answers: JoinSet<Returned> = JoinSet::new();
        let link = Arc::clone(&self.link);
        self.registered = false;
        loop {
            if link.is_closing() {
                self.leave(&session).await;
                return None;
            }
            self.deliver();
            while self.may_send(answers.len()) {
                let (id, message) = self.message();
                let mut session = session.clone();
                answers.spawn(async move { (id, session.run(message).await) });
            }
            let wait = self.next_event(answers.len()).saturating_sub(clock::now());
            tokio::select! {
                Some(answer) = answers.join_next() => {
                    let Ok((id, answer)) = answer else { return Some(Failure::malformed()) };
                    if let Err(failure) = answer.and_then(|values| self.take_in(id, &values)) {
                        return Some(failure);
                    }
                }
                () = link.wake.notified() => {}
                push = pushed.recv() => match push.map(|push| push.kind) {
                    Some(PushKind::Message) => self.hear_of_slot(),
                    Some(PushKind::Disconnection) | None => {
                        let why = "the connection was closed".into();
                        return Some(Failure { why, misconfigured: false });
                    }
                    Some(_) => {}
                },
                () = tokio::time::sleep(Duration::from_nanos(wait)) => {}
            }
        }
    }

    /// A slot is free for this process.
    fn hear_of_slot(&mut self) {
        // The answer to whoever asked before may come later than this, and say that there is none.
        self.told = true;
        self.post_ready();
    }

    /// Whoever waits may ask.
    fn post_ready(&mut self) {
        self.ready_at = None;
        self.in_line = self.in_line.map(|until| until.min(clock::now().saturating_add(GRACE)));
        self.link.post(vec![Event::Ready]);
    }

    /// Brings what is due.
    fn deliver(&mut self) {
        let now = clock::now();
        let mut due = Vec::new();
        while let Some(&Reverse(next)) = self.scheduled.peek()
            && next.due <= now
        {
            self.scheduled.pop();
            due.push((next.ticket, next.at, next.ask));
        }
        if !due.is_empty() {
            self.link.post(vec![Event::Granted(due)]);
        }
        if self.ready_at.is_some_and(|at| at <= now) {
            self.post_ready();
        }
    }

    /// The pause between two batches that are under way together.
    fn pause(&self) -> Nanos {
        PAUSE.max(self.trip / 32)
    }

    fn may_send(&mut self, under_way: usize) -> bool {
        let now = clock::now();
        if self.registered && self.link.taken() > 0 {
            // Slots were taken while the store was away: the servers are told how many there are in all.
            self.registered = false;
        }
        if !self.registered {
            return under_way == 0;
        }
        let since = now.saturating_sub(self.sent_at);
        if !self.link.has_notes() && self.notes.is_empty() && self.debits.is_empty() {
            return since >= HEARTBEAT;
        }
        if self.link.has_asks() {
            under_way == 0 || !self.careful && under_way < UNDER_WAY && since >= self.pause()
        } else {
            // What nobody waits for goes with those who ask, if there are any soon.
            under_way < UNDER_WAY && since >= self.pause().max(LINGER)
        }
    }

    fn next_event(&self, under_way: usize) -> Nanos {
        let mut at = self.sent_at.saturating_add(HEARTBEAT);
        if !self.registered && under_way > 0 {
            at = Nanos::MAX;
        } else if self.link.has_notes() || !self.notes.is_empty() {
            let pause = if self.link.has_asks() { self.pause() } else { self.pause().max(LINGER) };
            at = at.min(self.sent_at.saturating_add(pause));
        }
        let due = self.scheduled.peek().map(|Reverse(next)| next.due);
        let soon = [due, self.ready_at].into_iter().flatten().fold(at, Nanos::min);
        soon.min(clock::now().saturating_add(HEARTBEAT))
    }

    fn horizon(&self) -> Nanos {
        (4 * self.trip + SECOND / 100).clamp(HORIZON.0, HORIZON.1)
    }

    /// The first of a batch may reach as far as the fullest bucket takes to fill, twice: a large call needs a full one.
    fn reach(&self) -> Nanos {
        let times = self.setup.limits.rates.iter().map(|(_, rate)| rate.service_time(rate.burst()));
        times.max().unwrap_or(0).saturating_mul(2).clamp(REACH.0, REACH.1)
    }

    /// The next message, with all that is to be told.
    fn message(&mut self) -> (u64, Vec<u8>) {
        self.take_notes();
        let mut notes = std::mem::take(&mut self.notes);
        if notes.settles.len() > MOST_AT_ONCE {
            self.notes.settles = notes.settles.split_off(MOST_AT_ONCE);
        }
        let now = clock::now();
        self.held = (self.held + notes.taken).saturating_sub(notes.released);
        self.released += notes.released;
        if let Some(limits) = notes.limits.take() {
            self.setup.limits = limits;
            self.fresh_limits = true;
            self.ask_anew();
        }
        let register = !self.registered;
        if register {
            self.epoch += 1;
            self.released = 0;
        }
        self.notes.debit = self.notes.debit.plus(std::mem::take(&mut notes.debit));
        self.note_debit();
        let debits = std::mem::take(&mut self.debits);
        let settles = notes.settles.iter().filter_map(|settled| {
            let at = settled.at.unwrap_or_else(|| self.clocks.theirs(settled.charged_at));
            Settle::between(at, &settled.charged, &settled.actual)
        });
        let message = Message {
            process: self.process.clone(),
            epoch: self.epoch,
            register,
            seen: self.born.is_some(),
            fresh_limits: self.fresh_limits,
            released: self.released,
            holds: self.held,
            horizon: micros(self.horizon()),
            reach: micros(self.reach()),
            lease: micros(LEASE),
            limits: self.setup.limits.clone(),
            settles: settles.collect(),
            asks: notes.asks.iter().map(|(_, ask)| *ask).collect(),
            waits: self.in_line.is_some_and(|until| now < until),
            cooldowns: notes.cooldowns.clone(),
            debits: debits.iter().map(|&(at, cost)| (now.saturating_sub(at), cost)).collect(),
            away: self.away_since.filter(|_| register).map_or(0, |since| micros(now.saturating_sub(since))),
            restores: std::mem::take(&mut notes.restores),
            counted: notes.counted.clone(),
            learned: notes.learned.clone(),
            spent: notes.spent,
            leaving: false,
            clock: None,
            edition: notes.edition.unwrap_or(self.edition),
        };
        if self.fresh_limits {
            notes.limits = Some(self.setup.limits.clone());
        }
        self.fresh_limits = false;
        let asks = std::mem::take(&mut notes.asks);
        self.told &= asks.is_empty();
        // Refunds are not told twice, and slots are counted anew when the connection is.
        notes.settles.retain(|settled| !settled.actual.minus(settled.charged).is_free());
        (notes.taken, notes.released) = (0, 0);
        let id = self.next;
        self.next += 1;
        self.sent_at = now;
        self.under_way.insert(id, Batch { asks, again: notes, debits, sent: now });
        (id, message.encode())
    }

    /// Takes an answer in.
    fn take_in(&mut self, id: u64, values: &[i64]) -> Result<(), Failure> {
        let Some(Batch { asks, again, debits, sent }) = self.under_way.remove(&id) else { return Ok(()) };
        let now = clock::now();
        let answer = Answer::decode(values, asks.len()).map_err(|_| Failure::malformed())?;
        let trip = now.saturating_sub(sent);
        self.trip = if self.trip == 0 || trip < self.trip { trip } else { self.trip - self.trip / 16 + trip / 16 };
        let mut done = match answer {
            Answer::Unknown => {
                // Declared dead, or all was lost: what this message said of the time before does not count.
                self.registered = false;
                let mut denied: Vec<_> = asks.iter().map(|(ticket, _)| (*ticket, Denial::Lost)).collect();
                self.unschedule(&mut denied);
                self.notes.settles.clear();
                self.debits.splice(0..0, debits);
                self.link.post(vec![Event::Denied(denied, 0), Event::Ready]);
                if let Some(limits) = again.limits {
                    self.setup.limits = limits;
                    self.fresh_limits = true;
                }
                // What the provider said holds whoever this process is.
                let Notes { cooldowns, counted, learned, spent, edition, .. } = again;
                let mut said = Notes { cooldowns, counted, learned, spent, edition, ..Notes::default() };
                said.append(std::mem::take(&mut self.notes));
                self.notes = said;
                return Ok(());
            }
            Answer::Done(done) => done,
        };
        let mut events = Vec::new();
        let lost = self.born.is_some_and(|born| born != done.born);
        if self.born != Some(done.born) {
            self.clocks = Clocks::default();
            (self.born, self.edition) = (Some(done.born), 0);
        }
        self.clocks.sample(now, done.now);
        if !self.registered {
            self.registered = true;
            self.away_since = None;
            if std::mem::take(&mut self.away) || lost {
                events.push(Event::Back { members: done.members, lost });
            }
        }
        if done.members != self.last_members {
            self.last_members = done.members;
            events.push(Event::Members(done.members));
        }
        if done.edition > self.edition
            && !self.is_changing_limits()
            && let Some(limits) = done.limits.take()
        {
            self.edition = done.edition;
            let Limits { rates, concurrency, owned, told, .. } = limits.clone();
            let jitter = self.setup.limits.jitter;
            if rates != self.setup.limits.rates {
                self.ask_anew();
            }
            // As they would be told to a server that has lost them.
            self.setup.limits = Limits { rates, concurrency, jitter, owned, told, ..Limits::default() };
            events.push(Event::Limits(limits, done.edition));
        }
        if done.cooling > 0 {
            events.push(Event::Cooling(self.clocks.ours(done.now + done.cooling)));
        }
        if let Some(spent) = done.spent
            && !self.is_telling_that_it_is_back()
        {
            events.push(Event::Spent(spent, sent));
        }
        self.decide(&asks, &done, now, &mut events);
        self.link.post(events);
        if self.in_line.is_some() && std::mem::take(&mut self.told) {
            self.post_ready();
        }
        Ok(())
    }

    /// Whether other limits are on their way there: what is heard meanwhile is old.
    fn is_changing_limits(&self) -> bool {
        let under_way = self.under_way.values().any(|batch| batch.again.limits.is_some());
        under_way || self.notes.limits.is_some() || self.link.has_limits()
    }

    /// Whether the word that a quota is no longer spent is on its way there: what is heard meanwhile is old.
    fn is_telling_that_it_is_back(&self) -> bool {
        let under_way = self.under_way.values().any(|batch| batch.again.says_that_it_is_back());
        under_way || self.notes.says_that_it_is_back() || self.link.has_word_that_it_is_back()
    }

    fn decide(&mut self, asks: &[(Ticket, Ask)], done: &Done, now: Nanos, events: &mut Vec<Event>) {
        let (mut granted, mut denied) = (Vec::new(), Vec::new());
        let (horizon, mut blocked, mut for_slot) = (self.horizon(), false, false);
        for (&(ticket, ask), &decision) in asks.iter().zip(&done.decisions) {
            let denial = match decision {
                Decision::At(at) => {
                    self.held += u64::from(ask.slot);
                    let due = self.clocks.ours(at);
                    if due <= now {
                        granted.push((ticket, at, ask));
                    } else {
                        self.scheduled.push(Reverse(Scheduled { due, ticket, at, ask }));
                    }
                    continue;
                }
                Decision::NotBefore(at) => Denial::Later(self.clocks.ours(at)),
                Decision::NoSlot(_) => Denial::NoSlot,
                Decision::Oversize(dimension, limit) => Denial::Oversize(dimension, limit),
                Decision::Behind => Denial::Behind,
            };
            denied.push((ticket, denial));
            let hasty = match decision {
                Decision::NotBefore(at) => ask.patience.is_some_and(|patience| at - done.now > patience),
                _ => ask.patience == Some(0),
            };
            if blocked || hasty {
                continue; // it holds up nobody
            }
            match (decision, denial) {
                (_, Denial::Later(at)) => {
                    // Early enough for the answer to come in time; not all processes at once.
                    let early = horizon / 4 + self.spread(horizon / 2);
                    let early = if denied.len() >= asks.len() { self.reach().max(early) } else { early };
                    let at = at.saturating_sub(early).max(now + SECOND / 1_000);
                    self.ready_at = Some(self.ready_at.map_or(at, |ready| ready.min(at)));
                    blocked = true;
                }
                (Decision::NoSlot(at), _) => {
                    let again = at.map_or(now + AGAIN, |at| self.clocks.ours(at).max(now + SECOND / 1_000));
                    self.ready_at = Some(self.ready_at.map_or(again, |ready| ready.min(again)));
                    for_slot = true;
                    blocked = true;
                }
                _ => {}
            }
        }
        if blocked {
            // Those who have not asked yet come after them.
            denied.extend(self.link.take_asks().into_iter().map(|(ticket, _)| (ticket, Denial::Behind)));
            self.careful = for_slot;
        } else if !asks.is_empty() {
            self.careful = false;
        }
        if !asks.is_empty() {
            self.in_line = for_slot.then_some(Nanos::MAX);
        }
        if !granted.is_empty() {
            events.push(Event::Granted(granted));
        }
        if !denied.is_empty() {
            let others = asks.len().saturating_sub(denied.len());
            events.push(Event::Denied(denied, others));
        }
    }

    /// Somewhere between 0 and `range`.
    fn spread(&self, range: Nanos) -> Nanos {
        RandomState::new().hash_one(self.next) % range.max(1)
    }

    /// Says goodbye: what it holds is free at once.
    async fn leave(&mut self, session: &Session) {
        if !self.registered {
            return;
        }
        let mut denied = Vec::new();
        self.unschedule(&mut denied);
        self.take_notes();
        let mut notes = std::mem::take(&mut self.notes);
        self.notes.debit = std::mem::take(&mut notes.debit);
        self.note_debit();
        let now = clock::now();
        let settles = notes.settles.iter().filter_map(|settled| {
            let at = settled.at.unwrap_or_else(|| self.clocks.theirs(settled.charged_at));
            Settle::between(at, &settled.charged, &settled.actual)
        });
        let message = Message {
            process: self.process.clone(),
            epoch: self.epoch,
            released: self.released + notes.released,
            lease: micros(LEASE),
            settles: settles.collect(),
            fresh_limits: notes.limits.is_some(),
            limits: notes.limits.unwrap_or_default(),
            cooldowns: notes.cooldowns,
            counted: notes.counted,
            learned: notes.learned,
            spent: notes.spent,
            edition: notes.edition.unwrap_or(self.edition),
            debits: self.debits.iter().map(|&(at, cost)| (now.saturating_sub(at), cost)).collect(),
            leaving: true,
            ..Message::default()
        };
        let mut session = session.clone();
        let _ = tokio::time::timeout(GOODBYE, session.run(message.encode())).await;
    }
}

fn micros(nanos: Nanos) -> Micros {
    Micros::try_from(nanos / 1_000).unwrap_or(Micros::MAX)
}

/// How the server's clock stands to the process's.
///
/// An answer says what time it was there, and it was sent no later than it came: that difference is never too small. The
/// least of the last seconds is kept, so that a slow answer does not make everyone late.
#[derive(Debug, Default)]
struct Clocks {
    /// Ours minus theirs, in nanoseconds: the least of the present period, and of the one before.
    least: Option<i128>,
    before: Option<i128>,
    since: Nanos,
}

const PERIOD: Nanos = 2 * SECOND;

impl Clocks {
    fn sample(&mut self, ours: Nanos, theirs: Micros) {
        let offset = i128::from(ours) - i128::from(theirs) * 1_000;
        if ours >= self.since.saturating_add(PERIOD) {
            self.before = self.least.take();
            self.since = ours;
        }
        self.least = Some(self.least.map_or(offset, |least| least.min(offset)));
    }

    fn offset(&self) -> i128 {
        self.least.into_iter().chain(self.before).min().unwrap_or(0)
    }

    /// A time of the server's clock by the process's.
    fn ours(&self, theirs: Micros) -> Nanos {
        Nanos::try_from(i128::from(theirs) * 1_000 + self.offset()).unwrap_or(0)
    }

    /// A time of the process's clock by the server's.
    fn theirs(&self, ours: Nanos) -> Micros {
        Micros::try_from((i128::from(ours) - self.offset()) / 1_000).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::client;
    use super::*;

    /// Whatever becomes of the attempts before: refused at once, or silent for as long as one may be.
    #[test]
    fn a_server_that_is_back_is_asked_within_two_seconds() {
        let silent = client::CONNECT.max(client::ANSWER);
        for fails_after in [Duration::ZERO, Duration::from_millis(300), silent] {
            let (mut backoff, mut began, mut longest) = (Backoff::default(), Duration::ZERO, Duration::ZERO);
            for _ in 0..1_000 {
                // At worst it is back just after an attempt began, which will not hear of it.
                let next = began + fails_after + backoff.next();
                longest = longest.max(next.saturating_sub(began));
                began = next;
            }
            assert_eq!(longest, fails_after + BACKOFF.1);
            assert!(longest <= Duration::from_millis(1_500), "{longest:?}");
        }
        let pauses: Vec<_> = std::iter::repeat_with({
            let mut backoff = Backoff::default();
            move || backoff.next().as_millis()
        })
        .take(6)
        .collect();
        assert_eq!(pauses, [50, 100, 200, 400, 500, 500]);
    }

    fn slot() -> Notes {
        let ask = Ask { cost: Cost { requests: 1, ..Cost::default() }, slot: true, patience: None };
        Notes { asks: vec![(Ticket::from_bits(1), ask)], ..Notes::default() }
    }

    /// An answer: now, with so many members, and what it says of those who asked.
    fn answer(now: i64, rest: &[i64]) -> Vec<i64> {
        [&[0, now, 7, 0, 2, 0, 0, 0, 0, 1, 0], rest].concat()
    }

    fn member() -> Member {
        let address = Address::parse("redis://127.0.0.1:1/0").unwrap();
        let setup = Setup { limiter: "x".to_owned(), limits: Limits::given(Vec::new(), 1, None), address };
        let mut member = Member::new(setup, Arc::new(Link::default()));
        let (id, _) = member.message();
        member.take_in(id, &answer(100, &[])).unwrap();
        member
    }

    fn is_ready(event: &Event) -> bool {
        matches!(event, Event::Ready)
    }

    /// The word that a slot is free, and the answer that there was none, come on their own ways: either may be first.
    #[test]
    fn a_slot_that_is_told_before_the_answer_that_there_was_none_is_asked_for() {
        for told_first in [true, false] {
            let mut member = member();
            member.link.tell(slot());
            let (id, _) = member.message();
            if told_first {
                member.hear_of_slot();
                assert!(member.link.collect().iter().any(is_ready));
            }
            member.take_in(id, &answer(200, &[1, 2, -1])).unwrap();
            if !told_first {
                assert!(!member.link.collect().iter().any(is_ready));
                member.hear_of_slot();
            }
            let events = member.link.collect();
            assert!(is_ready(events.last().unwrap()), "{events:?}");
            assert_eq!(told_first, matches!(events[0], Event::Denied(..)));
            // Its calls ask once more; nobody has told them anything since, so they wait.
            member.link.tell(slot());
            let (id, _) = member.message();
            member.take_in(id, &answer(300, &[1, 2, -1])).unwrap();
            assert!(!member.link.collect().iter().any(is_ready));
        }
    }

    /// What an answer said is not lost with the process's name, and a cooldown goes on while nobody can be told of it.
    #[test]
    fn what_the_provider_said_is_told_again_for_as_long_as_it_still_holds() {
        let cooldown = |lasts| super::super::wire::Cooldown { dimension: None, period: None, lasts, requested: 0 };
        let mut member = member();
        member.link.tell(Notes { cooldowns: vec![cooldown(60 * SECOND)], ..Notes::default() });
        let (id, _) = member.message();
        member.take_in(id, &[1, 200, 7]).unwrap();
        assert!(!member.registered);
        assert_eq!(member.notes.cooldowns, [cooldown(60 * SECOND)]);

        member.noted_at = clock::now() - 20 * SECOND;
        member.link.tell(Notes { cooldowns: vec![cooldown(SECOND)], ..Notes::default() });
        member.lose(&Failure::malformed());
        let lasts: Vec<_> = member.notes.cooldowns.iter().map(|cooldown| cooldown.lasts / SECOND).collect();
        assert!(lasts[0] <= 40 && lasts[0] > 30 && lasts[1] == 1, "{lasts:?}");
        member.noted_at -= 50 * SECOND;
        member.take_notes();
        assert_eq!(member.notes.cooldowns, []);
    }

    #[test]
    fn who_waits_for_a_slot_stays_in_line_and_asks_again_though_nobody_tells() {
        let mut member = member();
        member.link.tell(slot());
        let (id, _) = member.message();
        assert_eq!(member.in_line, None);
        member.take_in(id, &answer(200, &[1, 2, -1])).unwrap();
        assert_eq!(member.in_line, Some(Nanos::MAX));
        let soon = member.ready_at.unwrap().saturating_sub(clock::now());
        assert!(soon <= AGAIN, "{soon}");
        // What it says of anything else meanwhile does not cost it its place.
        member.link.tell(Notes { released: 1, ..Notes::default() });
        let (id, _) = member.message();
        member.take_in(id, &answer(300, &[])).unwrap();
        assert_eq!(member.in_line, Some(Nanos::MAX));
        // Nor does being told, until its calls have had the time to ask; nobody asks, and it leaves the line.
        member.hear_of_slot();
        let until = member.in_line.unwrap();
        assert!(until <= clock::now() + GRACE);
        member.in_line = Some(0);
        member.link.tell(slot());
        let (id, _) = member.message();
        member.take_in(id, &answer(400, &[1, 0, 0])).unwrap();
        assert_eq!(member.in_line, None);
    }

    #[test]
    fn clocks_are_mapped_late_rather_than_early_and_follow_both_ways() {
        let mut clocks = Clocks::default();
        clocks.sample(10 * SECOND, 5_000_000); // took no time at all: 5 s apart
        clocks.sample(10 * SECOND + 900, 5_000_000);
        assert_eq!(clocks.ours(6_000_000), 11 * SECOND);
        assert_eq!(clocks.theirs(11 * SECOND), 6_000_000);
        clocks.sample(11 * SECOND, 9_000_000); // theirs was set forward by 3 s
        assert_eq!(clocks.ours(9_000_000), 11 * SECOND);
        for second in 12..20 {
            clocks.sample(second * SECOND, 9_000_000); // theirs stands still
        }
        assert_eq!(clocks.ours(9_000_000), 16 * SECOND); // as of the period before
    }
}
