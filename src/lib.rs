//! Penstock: a gate in front of LLM provider calls.
//!
//! The core is sans-I/O: each decision takes `now` and says what to do; nothing here sleeps, spawns, locks a loop or
//! reads a clock. The same code runs under asyncio, under threads and in a simulation that passes a day in a second.
//!
//! # How the parts fit
//!
//! Imports run one way, downwards:
//!
//! - [`gate`] decides who may leave when. It is what a caller drives.
//! - [`store`] keeps what its calls share: in memory, in memory of all processes of a host, or in Redis.
//! - [`ledger`] keeps all rates of a limiter and charges a [`cost`] in every dimension at once, or in none.
//!   [`queue`] keeps who waits, in what order, and [`keys`] what each key may use on its own.
//! - [`bucket`] and [`window`] are the two sides of one [`rate`]: the first paces, the second never lets more than the
//!   amount leave in any period. [`pace`] slows both down while the provider is overloaded or others use its quota.
//!   [`stats`] counts.
//! - [`discovery`] finds limits out that nobody configured.
//! - [`provider`] reads what providers say (headers, bodies, what a call costs); [`learner`] corrects what was estimated by
//!   what they report, and [`retry`] decides whether a call that failed is made again, and after how long. [`estimate`]
//!   counts tokens without a tokenizer.
//! - [`clock`] is for those who call all this.
//!
//! The Python bindings (feature `python`) only convert, call and convert back.
//!
//! # How to drive a gate
//!
//! Time is a number of nanoseconds ([`clock::Nanos`]) that never runs backwards; where it comes from is the caller's
//! affair. A call is admitted, or it waits under a ticket, or it is refused with the number that tells why. After
//! whatever may set someone free (a release, a settlement, a cancel, an update, or the time that
//! [`Gate::next_event`](gate::Gate::next_event) names) the caller pumps the gate, and wakes those it is given.
//!
//! Here is a whole minute of a limiter of 60 calls per minute, with two at a time, in no time at all:
//!
//! ```
//! use penstock::clock::{Nanos, SECOND};
//! use penstock::cost::{Cost, Dimension};
//! use penstock::gate::{Admission, Config, Gate, Request};
//! use penstock::rate::Rate;
//!
//! let rates = vec![
//!     (Dimension::Requests, Rate::new(60, 60 * SECOND)?),
//!     (Dimension::Tokens, Rate::new(90_000, 60 * SECOND)?.with_burst(3_000)?),
//! ];
//! let config = Config { rates, concurrency: Some(2), ..Config::default() };
//! let mut now: Nanos = 0; // virtual: this simulation says what time it is
//! let mut gate: Gate<&str> = Gate::new(config, now);
//! let call = Request { cost: Cost { requests: 1, tokens: 1_500, ..Cost::default() }, ..Request::default() };
//!
//! // The first leaves at once.
//! let mut settled = Vec::new();
//! let Admission::Granted(mut first) = gate.admit(now, &call, &mut settled) else { panic!("there is room") };
//!
//! // The second has a slot, but comes too early for 60 a minute: it waits, and the gate says until when.
//! let Admission::Queued(ticket) = gate.admit(now, &call, &mut settled) else { panic!("it comes too early") };
//! if let Some(payload) = gate.payload(ticket) {
//!     *payload = "the second"; // what the caller needs to find it again: a future, a thread, a name
//! }
//! assert_eq!(gate.next_event(), Some(SECOND));
//!
//! // A call that is not ready to wait for so long is told at once, and told how long it would be.
//! let hasty = Request { timeout: Some(SECOND), ..call };
//! let Admission::Refused(refusal) = gate.admit(now, &hasty, &mut settled) else { panic!("it would take 2 seconds") };
//! assert_eq!(refusal.to_string(), "the wait would be 2 seconds at the least");
//!
//! // When that time has come, a pump sets the second free.
//! now = SECOND;
//! gate.pump(now, &mut settled);
//! let (who, outcome) = settled.remove(0);
//! assert_eq!(who, "the second");
//! let second = outcome.expect("it was admitted");
//! assert_eq!((second.charged_at, second.waited), (SECOND, SECOND));
//!
//! // The first used fewer tokens than estimated: what it did not use is given back. Then both end.
//! gate.settle(now, &mut first, &Cost { requests: 1, tokens: 400, ..Cost::default() });
//! gate.release(now, &first);
//! gate.release(now, &second);
//! assert_eq!((gate.in_flight(), gate.waiting()), (0, 0));
//!
//! // From here on a caller that always has work is served once a second, until the minute's 60 have left. The next one
//! // waits until a whole period, and the network's jitter on top, is over: no window of the server's sees 61.
//! let mut left_at = vec![0, SECOND];
//! while left_at.len() < 61 {
//!     let Admission::Queued(_) = gate.admit(now, &call, &mut settled) else { panic!("it comes too early") };
//!     while settled.is_empty() {
//!         now = gate.next_event().expect("someone waits");
//!         gate.pump(now, &mut settled);
//!     }
//!     for (_, outcome) in settled.drain(..) {
//!         gate.release(now, &outcome.expect("it was admitted"));
//!         left_at.push(now);
//!     }
//! }
//! assert_eq!(left_at[59], 59 * SECOND);
//! assert!(left_at[60] > 60 * SECOND);
//! # Ok::<(), penstock::rate::RateError>(())
//! ```

// What only stores of several processes ask for is there without them, too.
#![cfg_attr(not(unix), allow(dead_code))]

pub mod bucket;
pub mod clock;
pub mod cost;
pub mod discovery;
pub mod estimate;
pub mod gate;
pub mod keys;
pub mod learner;
pub mod ledger;
pub mod limits;
pub mod pace;
pub mod provider;
#[cfg(feature = "python")]
mod python;
pub mod queue;
pub mod rate;
pub mod retry;
pub mod stats;
pub mod store;
pub mod window;
mod words;
