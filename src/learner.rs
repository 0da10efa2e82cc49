//! What a limiter learns of each model from the usage that is reported: how far the estimate of the input is off, and how
//! much such calls generate.

use std::collections::HashMap;

use crate::provider::Usage;

/// How many models are remembered; the one that was not used for longest is forgotten.
const MOST_MODELS: usize = 256;
/// How many calls' output is remembered of each model.
const HISTORY: usize = 64;
/// Fewer calls than this tell nothing of what is usual.
const FEWEST: usize = 3;
/// What each call leaves of the weight of those before it: about twenty of them count.
const DECAY: f64 = 0.95;
/// So many tokens are taken to have been estimated well before the first call, so that a few short ones prove little.
const PRIOR: f64 = 200.0;
/// A single call counts as at most this many times more, or less, than what was known: a picture in it is no text.
const OUTLIER: f64 = 2.0;
/// No estimate is corrected by more than this factor.
const MOST: f64 = 4.0;

/// What is known of one model.
#[derive(Clone, Debug)]
struct Model {
    /// Tokens reported and estimated, old ones fading.
    reported: f64,
    estimated: f64,
    outputs: Vec<u64>,
    next: usize,
    used: u64,
}

impl Default for Model {
    fn default() -> Self {
        Self { reported: PRIOR, estimated: PRIOR, outputs: Vec::new(), next: 0, used: 0 }
    }
}

impl Model {
    fn scale(&self) -> f64 {
        (self.reported / self.estimated).clamp(1.0 / MOST, MOST)
    }

    fn quantile(&self, share: f64) -> Option<u64> {
        if self.outputs.len() < FEWEST {
            return None;
        }
        let mut sorted = self.outputs.clone();
        sorted.sort_unstable();
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rank = ((sorted.len() - 1) as f64 * share.clamp(0.0, 1.0)).ceil() as usize;
        sorted.get(rank).copied()
    }
}

/// What was learned of all models.
#[derive(Clone, Debug, Default)]
pub struct Learner {
    models: HashMap<String, Model>,
    clock: u64,
    error: Option<f64>,
}

impl Learner {
    /// By what the estimated input of a call of this model is to be multiplied: from 1/4 to 4, and 1 while nothing is known.
    pub fn scale(&self, model: &str) -> f64 {
        self.models.get(model).map_or(1.0, Model::scale)
    }

    /// What this share (0 to 1) of the calls of this model generate at most; `None` while too few are known.
    pub fn output(&self, model: &str, share: f64) -> Option<u64> {
        self.models.get(model)?.quantile(share)
    }

    /// By how much, as a share, the corrected estimates of the input have been off lately; `None` before the first.
    pub fn error(&self) -> Option<f64> {
        self.error
    }

    /// Takes in what a call of `model` really used, whose input was estimated as `estimated` tokens; 0 if it was not.
    /// `choices` is how many answers it made.
    #[allow(clippy::cast_precision_loss)] // tokens of a call
    pub fn learn(&mut self, model: &str, estimated: u64, choices: u64, usage: &Usage) {
        self.clock += 1;
        let input = usage.input.saturating_add(usage.cache_read).saturating_add(usage.cache_write);
        if self.models.len() >= MOST_MODELS && !self.models.contains_key(model) {
            let oldest = self.models.iter().min_by_key(|(_, model)| model.used).map(|(name, _)| name.clone());
            oldest.and_then(|name| self.models.remove(&name));
        }
        let known = self.models.entry(model.to_owned()).or_default();
        known.used = self.clock;
        if estimated > 0 && input > 0 {
            let (estimated, input, scale) = (estimated as f64, input as f64, known.scale());
            let miss = ((estimated * scale - input) / input).abs().min(1.0);
            self.error = Some(self.error.map_or(miss, |error| error * DECAY + miss * (1.0 - DECAY)));
            let heard = input.clamp(estimated * scale / OUTLIER, estimated * scale * OUTLIER);
            known.reported = known.reported * DECAY + heard;
            known.estimated = known.estimated * DECAY + estimated;
        }
        if usage.output > 0 {
            let output = usage.output / choices.max(1);
            match known.outputs.get_mut(known.next) {
                Some(place) => *place = output,
                None => known.outputs.push(output),
            }
            known.next = (known.next + 1) % HISTORY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(input: u64, output: u64) -> Usage {
        Usage { input, output, ..Usage::default() }
    }

    fn near(value: f64, wanted: f64) -> bool {
        (value - wanted).abs() < wanted / 100.0
    }

    #[test]
    fn a_scale_is_learned_of_each_model() {
        let mut learner = Learner::default();
        assert!(near(learner.scale("a"), 1.0));
        assert_eq!((learner.output("a", 0.5), learner.error()), (None, None));
        for _ in 0..100 {
            learner.learn("a", 1_000, 1, &usage(1_300, 50));
            learner.learn("b", 1_000, 2, &usage(800, 70));
        }
        assert!(near(learner.scale("a"), 1.3), "{}", learner.scale("a"));
        assert!(near(learner.scale("b"), 0.8), "{}", learner.scale("b"));
        assert!(near(learner.scale("c"), 1.0));
        assert_eq!((learner.output("a", 0.5), learner.output("b", 0.5)), (Some(50), Some(35)));
        assert!(learner.error().is_some_and(|error| error < 0.01), "{:?}", learner.error());
    }

    #[test]
    fn a_call_unlike_all_others_changes_little_and_no_number_leaves_the_bounds() {
        let mut learner = Learner::default();
        for _ in 0..50 {
            learner.learn("a", 1_000, 1, &usage(1_000, 10));
        }
        learner.learn("a", 1_000, 1, &usage(1_000_000, 10)); // a video
        assert!((1.0..1.1).contains(&learner.scale("a")), "{}", learner.scale("a"));
        for _ in 0..200 {
            learner.learn("a", 1, 1, &usage(u64::MAX, u64::MAX));
            learner.learn("b", u64::MAX, 1, &usage(1, 0));
        }
        assert!(near(learner.scale("a"), MOST) && near(learner.scale("b"), 1.0 / MOST));
        assert!(learner.error().is_some_and(|error| (0.0..=1.0).contains(&error)));
    }

    #[test]
    fn cached_input_is_input() {
        let mut learner = Learner::default();
        for _ in 0..100 {
            learner.learn("a", 1_000, 1, &Usage { input: 10, cache_read: 900, cache_write: 90, output: 1 });
        }
        assert!(near(learner.scale("a"), 1.0));
    }

    #[test]
    fn quantiles_are_of_the_latest_calls() {
        let mut learner = Learner::default();
        for output in 1..=100 {
            learner.learn("a", 0, 1, &usage(5, output));
        }
        assert_eq!(learner.output("a", 0.0), Some(37));
        assert_eq!(learner.output("a", 0.5), Some(69));
        assert_eq!(learner.output("a", 0.95), Some(97));
        assert_eq!(learner.output("a", 1.0), Some(100));
        assert!(near(learner.scale("a"), 1.0)); // nothing was estimated
    }

    #[test]
    fn the_oldest_models_are_forgotten() {
        let mut learner = Learner::default();
        for model in 0..1_000 {
            learner.learn(&model.to_string(), 10, 1, &usage(10, 10));
        }
        assert_eq!(learner.models.len(), MOST_MODELS);
        assert!(learner.models.contains_key("999") && !learner.models.contains_key("0"));
    }
}
