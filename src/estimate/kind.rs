//! What a text is in the midst of, and what that weighs.

use Kind as K;

/// What the bytes so far are in the midst of. A state is a kind and a place `n` in it, counted from 1; the last place of
/// a kind is for all that follow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Start,
    // Words, by what came before. `Title` counts from the first lower-case letter after one or more in upper case.
    // A `Hump` begins inside a word, as in `camelCase`.
    LowerAfterSpace,
    LowerAfterMark,
    LowerAfterDigit,
    LowerBare,
    TitleAfterSpace,
    TitleAfterMark,
    TitleAfterDigit,
    TitleHump,
    TitleBare,
    UpperAfterSpace,
    UpperAfterMark,
    UpperAfterDigit,
    UpperHump,
    UpperBare,
    // The rest of a long word, whatever came before it.
    Letters,
    Capitals,
    Digit,
    DigitAfterSpace,
    DigitAfterWord,
    Space,
    Indent,
    Tab,
    Newline,
    NewlineAfterMark,
    NewlineAfterSpace,
    NewlineAgain,
    // One mark: 1 on its own, 2 after a space.
    Under,
    Dot,
    Comma,
    Colon,
    Quote,
    Apostrophe,
    Open,
    Close,
    Slash,
    Backslash,
    Dash,
    Sign,
    // A mark after another; the place is that of the mark in the list above.
    Run,
    // A mark after its like, as in rules and ellipses; two places for each of `Kind::rule`.
    Rule,
    Control,
    Latin1,
    Punctuation,
    Symbol,
    CjkPunctuation,
    Fullwidth,
    Selector,
    Emoji,
    Unusual,
    Greek,
    Cyrillic,
    Hebrew,
    Arabic,
    Script,
    Devanagari,
    Indic,
    Thai,
    LatinAdditional,
    // 1: after anything; 2: after kana; 3: after two or more kana; 4: after an ideograph.
    Kana,
    Han,
    HanAfterKana,
    Hangul,
    // After a lead byte, until the next one tells the script; the place is the one to take there.
    LeadE0,
    LeadE1,
    LeadE2,
    LeadE3,
    LeadEA,
    LeadEF,
    LeadF0,
}

/// Thousandths of a token for each place of each kind, in the order of [`Kind`].
#[rustfmt::skip]
pub(super) const WEIGHTS: [(Kind, &[i16]); 70] = [
    (K::Start, &[0]),
    (K::LowerAfterSpace, &[538, 177, 169, 0, 185, 0, 0, 0]),
    (K::LowerAfterMark, &[400, 75, 77, 0, 0, 0, 89, 49]),
    (K::LowerAfterDigit, &[828, 178, 207, 233, 231, 222, 209, 204]),
    (K::LowerBare, &[561, 235, 142, 0, 0, 0, 0, 79]),
    (K::TitleAfterSpace, &[218, 0, 9, 25, 0, 0]),
    (K::TitleAfterMark, &[23, 0, 75, 73, 0, 5]),
    (K::TitleAfterDigit, &[648, 247, 199, 146, 127, 124]),
    (K::TitleHump, &[0, 0, 0, 0, 0, 0]),
    (K::TitleBare, &[0, 0, 31, 166, 173, 203]),
    (K::UpperAfterSpace, &[772, 2, 0, 0, 0]),
    (K::UpperAfterMark, &[649, 122, 137, 32, 0]),
    (K::UpperAfterDigit, &[1942, 613, 545, 473, 433]),
    (K::UpperHump, &[741, 910, 641, 479, 465]),
    (K::UpperBare, &[716, 234, 271, 393, 420]),
    (K::Letters, &[68, 286, 97, 87, 436]),
    (K::Capitals, &[165]),
    (K::Digit, &[1007, 0, 0]),
    (K::DigitAfterSpace, &[2023]),
    (K::DigitAfterWord, &[1157]),
    (K::Space, &[0, 928, 0, 0, 0, 0, 0, 12]),
    (K::Indent, &[0, 670, 0, 0, 0, 0, 0, 12]),
    (K::Tab, &[908, 1296, 50]),
    (K::Newline, &[1460]),
    (K::NewlineAfterMark, &[225]),
    (K::NewlineAfterSpace, &[0]),
    (K::NewlineAgain, &[30]),
    (K::Under, &[823, 1190]),
    (K::Dot, &[888, 985]),
    (K::Comma, &[1170, 399]),
    (K::Colon, &[948, 733]),
    (K::Quote, &[824, 896]),
    (K::Apostrophe, &[1528, 717]),
    (K::Open, &[541, 822]),
    (K::Close, &[1358, 804]),
    (K::Slash, &[150, 796]),
    (K::Backslash, &[754, 1116]),
    (K::Dash, &[1081, 826]),
    (K::Sign, &[849, 1070]),
    (K::Run, &[355, 399, 50, 50, 101, 211, 423, 382, 50, 1057, 468, 646]),
    (K::Rule, &[5, 34, 388, 12, 0, 433, 817, 32, 0, 41]),
    (K::Control, &[743]),
    (K::Latin1, &[500, 200]),
    (K::Punctuation, &[1546, 58]),
    (K::Symbol, &[1002, 250]),
    (K::CjkPunctuation, &[0, 94]),
    (K::Fullwidth, &[179, 523]),
    (K::Selector, &[1044]),
    (K::Emoji, &[844, 2047]),
    (K::Unusual, &[1648]),
    (K::Greek, &[280, 404, 456, 458, 411]),
    (K::Cyrillic, &[725, 480, 196, 152, 137]),
    (K::Hebrew, &[589, 359, 378, 410, 458]),
    (K::Arabic, &[185, 385, 426, 408, 389]),
    (K::Script, &[369, 322, 338, 345, 330]),
    (K::Devanagari, &[336, 390]),
    (K::Indic, &[290, 427]),
    (K::Thai, &[433, 397]),
    (K::LatinAdditional, &[450, 200]),
    (K::Kana, &[1370, 497, 629, 570]),
    (K::Han, &[940, 1061, 1283, 1267, 960, 496]),
    (K::HanAfterKana, &[1506, 340, 368, 349]),
    (K::Hangul, &[1147, 543, 450, 410, 399, 423]),
    (K::LeadE0, &[0, 0]),
    (K::LeadE1, &[0, 0]),
    (K::LeadE2, &[0, 0]),
    (K::LeadE3, &[0, 0, 0, 0]),
    (K::LeadEA, &[0, 0, 0, 0, 0, 0]),
    (K::LeadEF, &[0, 0]),
    (K::LeadF0, &[0, 0]),
];

impl Kind {
    pub(super) const fn is(self, other: Self) -> bool {
        self as u8 == other as u8
    }

    pub(super) const fn within(self, first: Self, last: Self) -> bool {
        first as u8 <= self as u8 && self as u8 <= last as u8
    }

    pub(super) const fn is_word(self) -> bool {
        self.within(K::LowerAfterSpace, K::Capitals)
    }

    pub(super) const fn is_digit(self) -> bool {
        self.within(K::Digit, K::DigitAfterWord)
    }

    pub(super) const fn is_space(self) -> bool {
        self.within(K::Space, K::Indent)
    }

    pub(super) const fn is_newline(self) -> bool {
        self.within(K::Newline, K::NewlineAgain)
    }

    pub(super) const fn is_mark(self) -> bool {
        self.within(K::Under, K::Sign)
    }

    pub(super) const fn is_punctuation(self) -> bool {
        self.within(K::Under, K::Rule)
    }

    /// Whether a letter that follows shares its piece with this one character.
    pub(super) const fn joins_word(self) -> bool {
        self.is_mark() || matches!(self, K::Tab | K::Punctuation | K::Latin1)
    }

    /// The marks that are drawn in rows, numbered from 1.
    pub(super) const fn rule(self) -> Option<usize> {
        match self {
            K::Under => Some(1),
            K::Dot => Some(2),
            K::Slash => Some(3),
            K::Dash => Some(4),
            K::Sign => Some(5),
            _ => None,
        }
    }

    /// What a word costs more or less for the mark that it begins with.
    pub(super) const fn start(self) -> i16 {
        match self {
            K::Tab | K::Close => -239,
            K::Under | K::Dot | K::Apostrophe | K::Dash => -400,
            K::Comma => -159,
            K::Colon => -32,
            K::Quote => 553,
            K::Open => 21,
            K::Slash => 960,
            K::Backslash => -198,
            K::Latin1 => -254,
            K::Punctuation => -104,
            _ => 0,
        }
    }
}
