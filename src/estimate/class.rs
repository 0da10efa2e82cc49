//! What a byte is.

use super::kind::{Kind, Kind as K};
use Class as C;

/// What one byte of UTF-8 says about the character that it belongs to.
#[derive(Clone, Copy)]
pub(super) enum Class {
    Vowel,
    Consonant,
    Rare,
    Upper,
    Digit,
    Space,
    Tab,
    Newline,
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
    Control,
    // Continuation bytes, by the first of a range; the ranges end where, after one of the lead bytes below, a script does.
    From80,
    From81,
    From84,
    From90,
    FromA0,
    FromA4,
    FromA6,
    FromB0,
    FromB8,
    FromBA,
    FromBC,
    FromBE,
    // Lead bytes that settle the script.
    Latin1,
    Accent,
    Extended,
    Greek,
    Cyrillic,
    Hebrew,
    Arabic,
    Script,
    Han,
    Hangul,
    Unusual,
    // Lead bytes that leave it to the next byte.
    LeadE0,
    LeadE1,
    LeadE2,
    LeadE3,
    LeadEA,
    LeadEF,
    LeadF0,
}

impl Class {
    pub(super) const fn of(byte: u8) -> Self {
        match byte {
            b'a' | b'e' | b'i' | b'o' | b'u' => C::Vowel,
            b'j' | b'k' | b'q' | b'v' | b'w' | b'x' | b'y' | b'z' => C::Rare,
            b'a'..=b'z' => C::Consonant,
            b'A'..=b'Z' => C::Upper,
            b'0'..=b'9' => C::Digit,
            b' ' => C::Space,
            b'\t' => C::Tab,
            b'\n' | b'\r' => C::Newline,
            b'_' => C::Under,
            b'.' => C::Dot,
            b',' => C::Comma,
            b':' | b';' => C::Colon,
            b'"' => C::Quote,
            b'\'' | b'`' => C::Apostrophe,
            b'(' | b'[' | b'{' | b'<' => C::Open,
            b')' | b']' | b'}' | b'>' => C::Close,
            b'/' => C::Slash,
            b'\\' => C::Backslash,
            b'-' => C::Dash,
            b'!'..=b'~' => C::Sign,
            0x00..=0x7f => C::Control,
            0x80 => C::From80,
            0x81..=0x83 => C::From81,
            0x84..=0x8f => C::From84,
            0x90..=0x9f => C::From90,
            0xa0..=0xa3 => C::FromA0,
            0xa4..=0xa5 => C::FromA4,
            0xa6..=0xaf => C::FromA6,
            0xb0..=0xb7 => C::FromB0,
            0xb8..=0xb9 => C::FromB8,
            0xba..=0xbb => C::FromBA,
            0xbc..=0xbd => C::FromBC,
            0xbe..=0xbf => C::FromBE,
            0xc2 => C::Latin1,
            0xc3 => C::Accent,
            0xc4..=0xcd => C::Extended,
            0xce..=0xcf => C::Greek,
            0xd0..=0xd3 => C::Cyrillic,
            0xd6..=0xd7 => C::Hebrew,
            0xd8..=0xdb => C::Arabic,
            0xd4..=0xd5 | 0xdc..=0xdf => C::Script,
            0xe0 => C::LeadE0,
            0xe1 => C::LeadE1,
            0xe2 => C::LeadE2,
            0xe3 => C::LeadE3,
            0xe4..=0xe9 => C::Han,
            0xea => C::LeadEA,
            0xeb..=0xed => C::Hangul,
            0xef => C::LeadEF,
            0xf0 => C::LeadF0,
            _ => C::Unusual,
        }
    }

    /// The kind that begins with a punctuation mark of this class.
    pub(super) const fn mark(self) -> Option<Kind> {
        Some(match self {
            C::Under => K::Under,
            C::Dot => K::Dot,
            C::Comma => K::Comma,
            C::Colon => K::Colon,
            C::Quote => K::Quote,
            C::Apostrophe => K::Apostrophe,
            C::Open => K::Open,
            C::Close => K::Close,
            C::Slash => K::Slash,
            C::Backslash => K::Backslash,
            C::Dash => K::Dash,
            C::Sign => K::Sign,
            _ => return None,
        })
    }

    /// What a letter adds to its place in a word: few words of English have these letters, and few tokens.
    pub(super) const fn letter(self) -> i16 {
        match self {
            C::Rare => 290,
            C::Accent => 795,
            C::Extended => 1234,
            _ => 0,
        }
    }
}
