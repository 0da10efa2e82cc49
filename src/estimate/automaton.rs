//! Which state follows which, and what each step costs.

use super::class::{Class, Class as C};
use super::kind::{Kind, Kind as K, WEIGHTS};

/// The state after `class` is read at place `n` of `kind`.
const fn follow(kind: Kind, n: usize, class: Class) -> (Kind, usize) {
    match class {
        C::Vowel | C::Consonant | C::Rare | C::Accent | C::Extended => match kind {
            K::UpperAfterSpace => (K::TitleAfterSpace, n),
            K::UpperAfterMark => (K::TitleAfterMark, n),
            K::UpperAfterDigit => (K::TitleAfterDigit, n),
            K::UpperHump => (K::TitleHump, n),
            K::UpperBare => (K::TitleBare, n),
            K::Capitals => (K::Letters, 1),
            K::LatinAdditional => (K::LowerBare, 6),
            _ if kind.is_word() => longer(kind, n, K::Letters),
            _ if kind.is_space() => (K::LowerAfterSpace, 1),
            _ if kind.is_digit() => (K::LowerAfterDigit, 1),
            _ if kind.joins_word() => (K::LowerAfterMark, 1),
            _ => (K::LowerBare, 1),
        },
        C::Upper => match kind {
            K::Capitals => (kind, n),
            _ if kind.within(K::UpperAfterSpace, K::UpperBare) => longer(kind, n, K::Capitals),
            _ if kind.is_word() => (K::UpperHump, 1),
            _ if kind.is_space() => (K::UpperAfterSpace, 1),
            _ if kind.is_digit() => (K::UpperAfterDigit, 1),
            _ if kind.joins_word() => (K::UpperAfterMark, 1),
            _ => (K::UpperBare, 1),
        },
        C::Digit => match kind {
            K::DigitAfterSpace | K::DigitAfterWord => (K::Digit, 2),
            K::Digit => (K::Digit, n % 3 + 1),
            _ if kind.is_space() => (K::DigitAfterSpace, 1),
            _ if kind.is_word() => (K::DigitAfterWord, 1),
            _ => (K::Digit, 1),
        },
        C::Space if kind.is_newline() => (K::Indent, 1),
        C::Space if kind.is_space() => (kind, n + 1),
        C::Space => (K::Space, 1),
        C::Tab => another(K::Tab, kind, n),
        C::Newline if kind.is_newline() => (K::NewlineAgain, 1),
        C::Newline if kind.is_punctuation() => (K::NewlineAfterMark, 1),
        C::Newline if kind.is_space() || kind.is(K::Tab) => (K::NewlineAfterSpace, 1),
        C::Newline => (K::Newline, 1),
        C::Latin1 => another(K::Latin1, kind, n),
        C::Greek => another(K::Greek, kind, n),
        C::Cyrillic => another(K::Cyrillic, kind, n),
        C::Hebrew => another(K::Hebrew, kind, n),
        C::Arabic => another(K::Arabic, kind, n),
        C::Script => another(K::Script, kind, n),
        C::Hangul => another(K::Hangul, kind, n),
        C::Han => match kind {
            K::HanAfterKana if n == 4 => (K::Han, 6),
            K::Han | K::HanAfterKana => (kind, n + 1),
            K::Kana => (K::HanAfterKana, 1),
            _ => (K::Han, 1),
        },
        C::Control => (K::Control, 1),
        C::Unusual => (K::Unusual, 1),
        C::LeadE0 => (K::LeadE0, second(kind.within(K::Devanagari, K::Thai))),
        C::LeadE1 => (K::LeadE1, second(kind.is_word() || kind.is(K::Indic))),
        C::LeadE2 => (K::LeadE2, second(kind.within(K::Punctuation, K::Symbol))),
        C::LeadE3 => match kind {
            K::Kana if n == 2 || n == 3 => (K::LeadE3, 3),
            K::Kana => (K::LeadE3, 2),
            K::Han | K::HanAfterKana => (K::LeadE3, 4),
            _ => (K::LeadE3, 1),
        },
        C::LeadEA => (K::LeadEA, if kind.is(K::Hangul) { n + 1 } else { 1 }),
        C::LeadEF => (K::LeadEF, second(kind.within(K::Kana, K::Hangul))),
        C::LeadF0 => (K::LeadF0, second(kind.is(K::Emoji))),
        _ => match class.mark() {
            Some(mark) => follow_mark(kind, n, mark),
            None => follow_lead(kind, n, class),
        },
    }
}

const fn follow_mark(kind: Kind, n: usize, mark: Kind) -> (Kind, usize) {
    let place = mark as usize - K::Under as usize + 1;
    let again = kind.is(mark) || kind.is(K::Run) && n == place;
    match mark.rule() {
        Some(rule) if kind.is(K::Rule) && n.div_ceil(2) == rule => (K::Rule, 2 * rule),
        Some(rule) if again => (K::Rule, 2 * rule - 1),
        _ if kind.is_punctuation() => (K::Run, place),
        _ => (mark, second(kind.is_space())),
    }
}

/// A continuation byte: it names the script after an ambiguous lead byte, and else changes nothing.
const fn follow_lead(kind: Kind, n: usize, class: Class) -> (Kind, usize) {
    match (kind, class) {
        (K::LeadE0, C::FromA4) => (K::Devanagari, n),
        (K::LeadE0, C::FromB8) => (K::Thai, n),
        (K::LeadE0, C::FromA0) => (K::Script, 2),
        (K::LeadE1, C::FromB8 | C::FromBA) => (K::LatinAdditional, n),
        (K::LeadE0 | K::LeadE1, _) => (K::Indic, n),
        (K::LeadE2, C::From80) => (K::Punctuation, n),
        (K::LeadE2, _) => (K::Symbol, n),
        (K::LeadE3, C::From81) => (K::Kana, n),
        (K::LeadE3, C::From80 | C::From84) => (K::CjkPunctuation, second(n > 1)),
        (K::LeadEA, C::FromB0 | C::FromB8 | C::FromBA | C::FromBC | C::FromBE) => (K::Hangul, n),
        (K::LeadEA, _) => (K::Script, 2),
        (K::LeadEF, C::FromBC) => (K::Fullwidth, n),
        (K::LeadEF, C::FromB8) => (K::Selector, 1),
        (K::LeadF0, C::From90) => (K::Emoji, n),
        (K::LeadE3 | K::LeadEF | K::LeadF0, _) => (K::Unusual, 1),
        _ => (kind, n),
    }
}

/// One more of `kind`; what is too long for it goes on in a kind where all histories meet.
const fn longer(kind: Kind, n: usize, rest: Kind) -> (Kind, usize) {
    if n < WEIGHTS[kind as usize].1.len() || kind.is(rest) { (kind, n + 1) } else { (rest, 1) }
}

/// One more of `next`, or the first.
const fn another(next: Kind, kind: Kind, n: usize) -> (Kind, usize) {
    (next, if kind.is(next) { n + 1 } else { 1 })
}

const fn second(condition: bool) -> usize {
    if condition { 2 } else { 1 }
}

/// The step from `kind` to place `n` of `next`, and what it costs.
#[allow(clippy::cast_possible_truncation, reason = "a place is at most 12")]
const fn step(kind: Kind, class: Class, next: Kind, n: usize) -> Step {
    let weights = WEIGHTS[next as usize].1;
    let place = if n < weights.len() { n - 1 } else { weights.len() - 1 };
    // Nothing for a lead byte that does not tell the script, nor for a continuation byte once the script is known.
    let ambiguous = next.within(K::LeadE0, K::LeadF0);
    let known = class as u8 >= C::From80 as u8 && class as u8 <= C::FromBE as u8 && !kind.within(K::LeadE0, K::LeadF0);
    let cost = if ambiguous || known {
        0
    } else if next.is_word() && !kind.is_word() {
        weights[place] + class.letter() + kind.start()
    } else {
        weights[place] + class.letter()
    };
    Step { next: FIRST[next as usize] + place as u8, cost: if cost > 0 { cost.unsigned_abs() } else { 0 } }
}

/// A row of the automaton has a power of two of columns, so that an index needs no check.
pub(super) const COLUMNS: usize = 64;
const STATES: usize = 256;
pub(super) const START: u8 = 0;

#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) next: u8,
    pub(super) cost: u16,
}

pub(super) static CLASS_OF: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < BYTES.len() {
        classes[byte] = Class::of(BYTES[byte]) as u8;
        byte += 1;
    }
    classes
};

/// All bytes, in order.
const BYTES: [u8; 256] = {
    let mut bytes = [0; 256];
    let mut byte = 1;
    while byte < bytes.len() {
        bytes[byte] = bytes[byte - 1] + 1;
        byte += 1;
    }
    bytes
};

/// The number of the first state of each kind; its other places follow.
const FIRST: [u8; WEIGHTS.len()] = {
    let mut first = [START; WEIGHTS.len()];
    let mut k = 1;
    while k < first.len() {
        let mut n = 0;
        first[k] = first[k - 1];
        while n < WEIGHTS[k - 1].1.len() {
            first[k] += 1; // more than 255 would not compile
            n += 1;
        }
        k += 1;
    }
    first
};

/// The automaton: [`follow`] and [`cost`], worked out for all states and classes when the crate is compiled.
pub(super) static STEPS: [[Step; COLUMNS]; STATES] = {
    let mut steps = [[Step { next: START, cost: 0 }; COLUMNS]; STATES];
    let mut k = 0;
    while k < WEIGHTS.len() {
        let (kind, weights) = WEIGHTS[k];
        assert!(kind as usize == k, "WEIGHTS must be in the order of Kind");
        let mut n = 1;
        while n <= weights.len() {
            let mut byte = 0;
            while byte < BYTES.len() {
                // One byte of each class will do.
                if byte == 0 || CLASS_OF[byte] != CLASS_OF[byte - 1] {
                    let class = Class::of(BYTES[byte]);
                    let (next, place) = follow(kind, n, class);
                    steps[FIRST[k] as usize + n - 1][class as usize] = step(kind, class, next, place);
                }
                byte += 1;
            }
            n += 1;
        }
        k += 1;
    }
    steps
};

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn kinds_fill_the_states() {
        let places: usize = WEIGHTS.iter().map(|(_, weights)| weights.len()).sum();
        assert!(places <= STATES);
        assert!(WEIGHTS.iter().all(|(_, weights)| !weights.is_empty()));
    }

    /// What a text costs depends on what stands before it, by so much at the most. It is found by comparing a run from
    /// each state with a run from the start, over all texts at once: the largest difference of a pair of states is that
    /// of a step plus that of the pair it leads to. That this ends shows that the two runs never drift apart.
    #[test]
    fn history_costs_at_most_four_tokens() {
        let classes: BTreeSet<usize> = CLASS_OF.iter().map(|&class| usize::from(class)).collect();
        let steps = |(a, b): (u8, u8)| {
            classes.iter().map(move |&class| (STEPS[usize::from(a)][class], STEPS[usize::from(b)][class]))
        };
        let mut pairs: BTreeMap<(u8, u8), i32> = BTreeMap::new();
        let mut open: Vec<(u8, u8)> = (0..=u8::MAX).flat_map(|state| [(state, START), (START, state)]).collect();
        while let Some(pair) = open.pop() {
            if pairs.insert(pair, 0).is_none() {
                open.extend(steps(pair).map(|(a, b)| (a.next, b.next)));
            }
        }
        let mut changed = true;
        let mut rounds = 0;
        while changed {
            rounds += 1;
            assert!(rounds < 1000, "two runs drift apart");
            changed = false;
            for pair in pairs.keys().copied().collect::<Vec<_>>() {
                let most = steps(pair)
                    .map(|(a, b)| i32::from(a.cost) - i32::from(b.cost) + pairs[&(a.next, b.next)])
                    .max()
                    .unwrap_or(0);
                if most > pairs[&pair] {
                    pairs.insert(pair, most);
                    changed = true;
                }
            }
        }
        let most = (0..=u8::MAX).map(|state| pairs[&(state, START)].max(pairs[&(START, state)])).max();
        assert!(most <= Some(4000), "{most:?}");
    }
}
