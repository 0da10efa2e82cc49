//! State as words, for stores that keep it outside of this process's memory.
//!
//! What is shared says once, in `carry`, what it consists of. A [`Carrier`] takes that out or puts it in: one list of
//! fields serves both, so that they cannot drift apart.

use crate::clock::Nanos;

/// Takes words of a state away, or brings them.
pub(crate) trait Carrier {
    /// One word.
    fn word(&mut self, word: &mut u64);

    /// A number of two words.
    #[inline]
    fn wide(&mut self, number: &mut i128) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // both halves, on purpose
        let (mut low, mut high) = (*number as u64, (*number >> 64) as u64);
        self.word(&mut low);
        self.word(&mut high);
        #[allow(clippy::cast_possible_wrap)] // the sign is in the upper half
        let joined = (i128::from(high as i64) << 64) | i128::from(low);
        *number = joined;
    }

    /// Whether something is there.
    #[inline]
    fn flag(&mut self, flag: &mut bool) {
        let mut word = u64::from(*flag);
        self.word(&mut word);
        *flag = word != 0;
    }

    /// A number that is not always there.
    #[inline]
    fn perhaps(&mut self, number: &mut Option<Nanos>) {
        let (mut there, mut word) = (number.is_some(), number.unwrap_or_default());
        self.flag(&mut there);
        self.word(&mut word);
        *number = there.then_some(word);
    }
}
