//! What a process tells the script, and what the script answers.
//!
//! A message is one `MessagePack` array, so that a batch of hundreds is read by one call of C; an answer is an array of
//! whole numbers. Times are microseconds of the server's clock.

use crate::clock::Nanos;
use crate::cost::{Cost, Dimension};
pub use crate::ledger::{Counted, Learned, Left};
pub use crate::limits::{Limits, Places};
use crate::rate::Rate;

/// Microseconds.
pub type Micros = i64;

/// A call that asks to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What it is charged.
    pub cost: Cost,
    /// Whether it takes a slot.
    pub slot: bool,
    /// How long it is ready to wait; for ever, if nothing is said. 0 is now or never.
    pub patience: Option<Micros>,
}

/// What a call used more, or less, than it was charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settle {
    /// When it was charged, by the server's clock.
    pub at: Micros,
    /// By dimension: more, or less if negative.
    pub more: [i64; 4],
}

impl Settle {
    /// From what was charged to what was used; nothing if that is the same.
    pub fn between(at: Micros, charged: &Cost, actual: &Cost) -> Option<Self> {
        let more = Dimension::ALL.map(|dimension| {
            let (charged, actual) = (charged.get(dimension), actual.get(dimension));
            i64::try_from(actual).unwrap_or(i64::MAX) - i64::try_from(charged).unwrap_or(i64::MAX)
        });
        (more != [0; 4]).then_some(Self { at, more })
    }
}

/// A time before which nothing leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cooldown {
    /// What must not leave; everything, if nothing is said.
    pub dimension: Option<Dimension>,
    /// The rate that was short, by its period; that of the shortest, if nothing is said.
    pub period: Option<Nanos>,
    /// For how long, in nanoseconds.
    pub lasts: Nanos,
    /// How much may leave at once when it is over: what the refused call asked for, or 0 for a second's worth.
    pub requested: u64,
}

/// A quota that is spent, by the provider's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// For how much longer, in nanoseconds; 0 if it is back.
    pub lasts: Nanos,
    /// When it resets, in milliseconds since 1970, if the provider said so.
    pub resets_at: Option<u64>,
    /// The dimension that is short, if the provider said so.
    pub dimension: Option<Dimension>,
}

/// All that one message says.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // flags of a protocol
pub struct Message {
    /// Who sends it; unique among all processes.
    pub process: String,
    /// Counts how often the process has made itself known: what an earlier self says no longer counts.
    pub epoch: u64,
    /// Whether the process makes itself known.
    pub register: bool,
    /// Whether it has seen this limiter's state before, so that there are calls which a fresh state knows nothing of.
    pub seen: bool,
    /// Whether the limits replace those that the state has.
    pub fresh_limits: bool,
    /// How many slots were given back since it made itself known.
    pub released: u64,
    /// How many slots it held when it made itself known.
    pub holds: u64,
    /// How far ahead calls may be admitted.
    pub horizon: Micros,
    /// How far ahead the first of the batch may be admitted.
    pub reach: Micros,
    /// For how long the process counts as alive.
    pub lease: Micros,
    /// With `register` or `fresh_limits`.
    pub limits: Limits,
    /// Who asks to leave, in order.
    pub asks: Vec<Ask>,
    /// Whether calls that do not ask now wait for a slot: the process keeps its place among those that do.
    pub waits: bool,
    /// What calls really used.
    pub settles: Vec<Settle>,
    /// What must not leave for a while.
    pub cooldowns: Vec<Cooldown>,
    /// What left while the store was away: how long ago, in nanoseconds, and how much.
    pub debits: Vec<(Nanos, Cost)>,
    /// For how long it was away, with the first word after that.
    pub away: Micros,
    /// What left before the state was lost.
    pub restores: Vec<Left>,
    /// What was used of rates before they were known.
    pub counted: Vec<Counted>,
    /// What providers said of rates.
    pub learned: Vec<Learned>,
    /// What providers said of a spent quota.
    pub spent: Option<Spent>,
    /// Whether the process leaves.
    pub leaving: bool,
    /// For tests: the server's clock.
    pub clock: Option<Micros>,
    /// Which limits the process knows, as the last answer said; 0 before.
    pub edition: i64,
}

impl Message {
    /// The message as the script reads it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Pack::default();
        out.array(23);
        out.text(&self.process);
        out.whole(signed(self.epoch));
        for flag in [self.register, self.seen, self.fresh_limits] {
            out.whole(flag.into());
        }
        for number in [signed(self.released), signed(self.holds), self.horizon, self.reach, self.lease] {
            out.whole(number);
        }
        self.encode_limits(&mut out);
        self.encode_asks(&mut out);
        out.array(self.settles.len() * 5);
        for settle in &self.settles {
            out.whole(settle.at);
            for more in settle.more {
                out.whole(more);
            }
        }
        out.array(self.cooldowns.len() * 4);
        for cooldown in &self.cooldowns {
            out.whole(cooldown.dimension.map_or(0, number));
            out.period(cooldown.period.unwrap_or(0));
            out.whole(up(cooldown.lasts));
            out.whole(signed(cooldown.requested));
        }
        out.array(self.debits.len() * 5);
        for (ago, cost) in &self.debits {
            out.whole(signed(*ago / 1_000));
            out.cost(cost);
        }
        out.array((self.restores.len() + self.counted.len()) * 4);
        for left in &self.restores {
            out.whole(number(left.dimension));
            out.period(left.period);
            out.whole(signed(left.ago / 1_000));
            out.whole(signed(left.amount));
        }
        for counted in &self.counted {
            out.whole(number(counted.dimension));
            out.period(counted.period);
            out.whole(-1); // no time: now, and less what is known of
            out.whole(signed(counted.used));
        }
        out.array(self.learned.len() * 5);
        for learned in &self.learned {
            out.whole(number(learned.dimension));
            out.period(learned.period);
            for value in [learned.amount, learned.burst, learned.speed] {
                out.whole(signed(value));
            }
        }
        out.array(if self.spent.is_some() { 3 } else { 0 });
        if let Some(spent) = &self.spent {
            out.whole(up(spent.lasts));
            out.whole(signed(spent.resets_at.unwrap_or(0)));
            out.whole(spent.dimension.map_or(0, number));
        }
        out.whole(self.leaving.into());
        out.whole(self.clock.unwrap_or(-1));
        out.whole(self.edition);
        out.whole(self.away);
        out.whole(self.waits.into());
        out.0
    }

    fn encode_limits(&self, out: &mut Pack) {
        let Limits { rates, concurrency, jitter, owned, found, told } = &self.limits;
        if !self.register && !self.fresh_limits {
            return out.array(0);
        }
        out.array(4 + rates.len() * 5);
        out.whole(signed(*concurrency));
        for places in [owned, found, told] {
            out.whole(places.bits().into());
        }
        for (dimension, rate) in rates {
            out.whole(number(*dimension));
            out.whole(signed(rate.amount()));
            out.period(rate.period());
            out.whole(signed(rate.burst()));
            let span = rate.period().saturating_add(jitter.unwrap_or_else(|| rate.default_jitter()));
            out.whole(if rate.window() { up(span) } else { 0 });
        }
    }

    /// Neighbours that are alike are told once, with their number.
    fn encode_asks(&self, out: &mut Pack) {
        let mut runs: Vec<(i64, Ask)> = Vec::new();
        for &ask in &self.asks {
            match runs.last_mut() {
                Some((alike, last)) if *last == ask => *alike += 1,
                _ => runs.push((1, ask)),
            }
        }
        out.array(runs.len() * 7);
        for (alike, ask) in runs {
            out.whole(alike);
            out.whole(ask.slot.into());
            out.whole(ask.patience.unwrap_or(-1));
            out.cost(&ask.cost);
        }
    }
}

/// What becomes of a call that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may leave at this time of the server's clock, and is charged.
    At(Micros),
    /// Not so soon: at this time at the earliest, as things stand. Nothing was charged.
    NotBefore(Micros),
    /// Every slot is taken, or promised to others; ask again when told, or at this time.
    NoSlot(Option<Micros>),
    /// No wait can satisfy it: the most of this dimension that a call may cost.
    Oversize(Dimension, u64),
    /// Nobody decided: those before it must wait.
    Behind,
}

/// The answer to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The process is not known there: it was declared dead, or the state was lost. Nothing of the message counts.
    Unknown,
    /// All of it was done.
    Done(Done),
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The server's clock: that of the limiter, which never runs back.
    pub now: Micros,
    /// When the state was made: another one has lost what this one knew.
    pub born: Micros,
    /// Whether the state was made by this message.
    pub created: bool,
    /// How many processes there are.
    pub members: u64,
    /// For how much longer nothing leaves.
    pub cooling: Micros,
    /// A quota that is spent.
    pub spent: Option<Spent>,
    /// What becomes of those who asked, in their order.
    pub decisions: Vec<Decision>,
    /// Which limits hold.
    pub edition: i64,
    /// Those, if they are not the ones that the process knows: without `jitter` and `found`, which are each one's own.
    pub limits: Option<Limits>,
}

impl Answer {
    /// Reads an answer to a message with that many asks.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(values: &[i64], asked: usize) -> Result<Self, Malformed> {
        if values.len() >= 3 && values[0] == 1 {
            return Ok(Self::Unknown);
        }
        let &[0, now, born, created, members, cooling, spent, resets_at, dimension, edition, told, ref rest @ ..] =
            values
        else {
            return Err(Malformed);
        };
        let told = usize::try_from(told).map_err(|_| Malformed)?;
        let (limits, rest) = rest.split_at_checked(told).ok_or(Malformed)?;
        let limits = if told == 0 { None } else { Some(decode_limits(limits).ok_or(Malformed)?) };
        let mut decisions = Vec::with_capacity(asked);
        for run in rest.chunks(3) {
            let &[alike, kind, value] = run else { return Err(Malformed) };
            let decision = match kind {
                0 => Decision::At(now.saturating_add(value.max(0))),
                1 => Decision::NotBefore(now.saturating_add(value.max(0))),
                2 => Decision::NoSlot((value >= 0).then_some(now.saturating_add(value))),
                _ => Decision::Oversize(dimension_of(kind - 9).ok_or(Malformed)?, unsigned(value)),
            };
            let alike = usize::try_from(alike).map_err(|_| Malformed)?;
            if alike > asked - decisions.len() {
                return Err(Malformed);
            }
            decisions.extend(std::iter::repeat_n(decision, alike));
        }
        decisions.resize(asked, Decision::Behind);
        let spent = (spent > 0).then(|| Spent {
            lasts: unsigned(spent).saturating_mul(1_000),
            resets_at: (resets_at > 0).then_some(unsigned(resets_at)),
            dimension: dimension_of(dimension),
        });
        let (created, members, cooling) = (created == 1, unsigned(members), cooling.max(0));
        Ok(Self::Done(Done { now, born, created, members, cooling, spent, decisions, edition, limits }))
    }
}

fn decode_limits(values: &[i64]) -> Option<Limits> {
    let &[concurrency, owned, told, ref rest @ ..] = values else { return None };
    let mut rates = Vec::new();
    for rate in rest.chunks(6) {
        let &[dimension, amount, micros, nanos, burst, span] = rate else { return None };
        let period = unsigned(micros).checked_mul(1_000)?.checked_add(unsigned(nanos))?;
        let rate = Rate::new(unsigned(amount), period).ok()?.with_burst(unsigned(burst)).ok()?;
        rates.push((dimension_of(dimension)?, rate.with_window(span > 0)));
    }
    let [owned, told] = [owned, told].map(|places| Places::from_bits(u8::try_from(places & 31).unwrap_or_default()));
    Some(Limits { rates, concurrency: unsigned(concurrency), owned, told, ..Limits::default() })
}

/// What came is no answer of the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

fn number(dimension: Dimension) -> i64 {
    dimension as i64 + 1
}

fn dimension_of(number: i64) -> Option<Dimension> {
    usize::try_from(number - 1).ok().and_then(|index| Dimension::ALL.get(index).copied())
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Nanoseconds as microseconds, rounded up: nothing leaves too early. No more than Lua counts exactly.
fn up(nanos: Nanos) -> i64 {
    signed(nanos.div_ceil(1_000)).min(1 << 50)
}

/// A `MessagePack` document in the making.
#[derive(Default)]
struct Pack(Vec<u8>);

impl Pack {
    fn array(&mut self, len: usize) {
        let Self(out) = self;
        match u16::try_from(len) {
            Ok(len) if len < 16 => out.push(0x90 | len.to_be_bytes()[1]),
            Ok(len) => {
                out.push(0xdc);
                out.extend(len.to_be_bytes());
            }
            Err(_) => {
                out.push(0xdd);
                out.extend(u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
            }
        }
    }

    fn text(&mut self, text: &str) {
        let Self(out) = self;
        out.push(0xda);
        out.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend(text.bytes().take(u16::MAX.into()));
    }

    fn whole(&mut self, value: i64) {
        let Self(out) = self;
        match i8::try_from(value) {
            Ok(small) if small >= -32 => out.extend(small.to_be_bytes()),
            _ => {
                if let Ok(small) = i32::try_from(value) {
                    out.push(0xd2);
                    out.extend(small.to_be_bytes());
                } else {
                    out.push(0xd3);
                    out.extend(value.to_be_bytes());
                }
            }
        }
    }

    /// Microseconds; a period may have a part of one, which names it, and is exact in a double.
    fn period(&mut self, period: Nanos) {
        if period.is_multiple_of(1_000) {
            return self.whole(signed(period / 1_000));
        }
        #[allow(clippy::cast_precision_loss)] // below 2^55 nanoseconds: the last bits make no difference
        let micros = period as f64 / 1e3;
        self.0.push(0xcb);
        self.0.extend(micros.to_be_bytes());
    }

    fn cost(&mut self, cost: &Cost) {
        for dimension in Dimension::ALL {
            self.whole(signed(cost.get(dimension)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_lengths_are_those_of_messagepack() {
        let mut pack = Pack::default();
        for value in [0, 127, -32, 128, -33, i64::from(i32::MAX) + 1] {
            pack.whole(value);
        }
        pack.array(15);
        pack.array(16);
        pack.array(70_000);
        pack.period(1_500);
        let mut expected = vec![0, 127, 0xe0, 0xd2, 0, 0, 0, 128, 0xd2, 0xff, 0xff, 0xff, 0xdf];
        expected.extend([0xd3, 0, 0, 0, 0, 0x80, 0, 0, 0, 0x9f, 0xdc, 0, 16, 0xdd, 0, 1, 0x11, 0x70, 0xcb]);
        expected.extend(1.5_f64.to_be_bytes());
        assert_eq!(pack.0, expected);
    }

    #[test]
    fn what_is_no_answer_is_told_and_never_believed() {
        assert_eq!(Answer::decode(&[1, 5, 0], 3), Ok(Answer::Unknown));
        let begun = |rest: &[i64]| [&[0, 100, 7, 1, 2, 0, 0, 0, 0, 9], rest].concat();
        for bad in [vec![], vec![0, 1], begun(&[0, 7, 0, 0]), begun(&[0, 1, 0]), begun(&[9, 1]), begun(&[-1])] {
            assert_eq!(Answer::decode(&bad, 3), Err(Malformed), "{bad:?}");
        }
        // A rate without an amount, one of a dimension that there is not, and one that is cut off.
        for bad in [[9, 0, 31, 0, 1, 0, 1_000_000, 0, 1, 0], [9, 0, 31, 0, 7, 5, 1_000_000, 0, 1, 0]] {
            assert_eq!(Answer::decode(&begun(&bad), 3), Err(Malformed), "{bad:?}");
        }
        assert_eq!(Answer::decode(&begun(&[5, 0, 31, 0, 1, 5]), 3), Err(Malformed));
        let Ok(Answer::Done(done)) = Answer::decode(&begun(&[0, 1, 0, 0, 1, 1, 50]), 3) else { panic!("it is one") };
        assert_eq!(done.decisions, [Decision::At(100), Decision::NotBefore(150), Decision::Behind]);
        assert_eq!((done.now, done.born, done.created, done.members), (100, 7, true, 2));
        assert_eq!((done.edition, done.limits), (9, None));
        let said = begun(&[9, 4, 31, 2, 1, 60, 60_000_000, 7, 6, 1, 1, 0, 0]);
        let Ok(Answer::Done(done)) = Answer::decode(&said, 1) else { panic!("it is one") };
        let rate = Rate::new(60, 60_000_000_007).unwrap().with_burst(6).unwrap();
        let told = Places::of(Dimension::Tokens);
        let limits = Limits { told, ..Limits::given(vec![(Dimension::Requests, rate)], 4, None) };
        assert_eq!((done.decisions, done.limits), (vec![Decision::At(100)], Some(limits)));
    }
}
