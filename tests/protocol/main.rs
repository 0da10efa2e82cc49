//! The protocol of shared memory (`src/store/shared/lock.rs`, `flip.rs`) in a model that tries every order of every
//! access that the machine allows, with processes that die, or that stand still, at any step.
//!
//! Tried is what up to three switches at times when nobody waits can bring about; two find what is to be found
//! (Musuvathi and Qadeer, 2007). `scripts/loom` goes further. What the model is worth is tested, too: the same files under
//! weaker orderings, and steps that are left out or done wrong, must fail it.

#![allow(dead_code, clippy::duplicate_mod)] // each world has the protocol's files for its own, and uses parts of them

mod layout;
mod sound;
mod without_acquire;
mod without_release;

use std::panic;

#[test]
fn two_that_live_lose_nothing() {
    assert!(sound::model::two_live(None) > 0);
}

#[test]
fn one_that_dies_at_any_step_leaves_what_holds() {
    for steps in 0..4 {
        assert!(sound::model::one_dies(steps, None) > 0, "nobody took the lock from it");
    }
}

#[test]
fn one_that_stands_still_at_any_step_harms_nobody_when_it_goes_on() {
    assert!(sound::model::one_stands_still(None) > 0, "nobody took the lock from it");
}

/// Whether loom found an order in which that goes wrong.
fn fails(model: impl FnOnce() -> usize + panic::UnwindSafe) -> bool {
    panic::catch_unwind(model).is_err()
}

#[test]
fn what_is_published_without_release_is_not_found_whole() {
    assert!(fails(|| without_release::model::two_live(None)));
}

#[test]
fn what_is_read_without_acquire_is_not_found_whole() {
    assert!(fails(|| without_acquire::model::two_live(None)));
}

#[test]
fn whoever_writes_over_the_copy_that_holds_is_found_out() {
    use sound::model::{Fault, one_dies};
    assert!(fails(|| one_dies(1, Some(Fault::WritesWhatHolds))));
}

#[test]
fn a_decision_that_does_not_flip_is_missed() {
    use sound::model::{Fault, two_live};
    assert!(fails(|| two_live(Some(Fault::NeverFlips))));
}

#[test]
fn whoever_takes_the_lock_from_the_living_must_move_out() {
    use sound::model::{Fault, one_stands_still};
    assert!(fails(|| one_stands_still(Some(Fault::StaysWithTheHaunted))));
}

#[test]
fn whoever_was_taken_for_dead_must_not_go_on() {
    use sound::model::{Fault, one_stands_still};
    assert!(fails(|| one_stands_still(Some(Fault::NeverAsksWhetherItHeld))));
}
