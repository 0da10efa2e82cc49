//! JSON as it comes, in pieces cut anywhere: the little that tells of usage and errors is copied, the text of an answer is
//! counted, and all else is passed over. Memory is constant, whatever comes.

use crate::estimate::Estimator;

/// Members that are copied with all that is in them: they tell of usage or of an error.
const WHOLE: &[&str] = &[
    "usage",
    "usageMetadata",
    "usage_metadata",
    "billed_units",
    "error",
    "errors",
    "eval_count",
    "prompt_eval_count",
    "amazon-bedrock-invocationMetrics",
];

/// Members in which such members may be.
const WRAPPERS: &[&str] = &["message", "response", "x_groq", "meta", "delta", "metadata", "detail"];

/// Texts that say what an error is, and which kind of event this is.
const LABELS: &[&str] = &["type", "object", "code", "status", "message", "event_type"];

/// Members that hold generated text.
const TEXT: &[&str] = &[
    "content",
    "text",
    "delta",
    "arguments",
    "partial_json",
    "thinking",
    "reasoning_content",
    "reasoning",
    "refusal",
    "response",
    "generation",
    "completion",
    "outputText",
    "generated_text",
];

/// Members whose members are generated, whatever they are called: what a tool is called with.
const ARGUMENTS: &[&str] = &["args", "input", "arguments"];

/// What carries base64 of another document at Bedrock.
const CARRIER: &str = "bytes";

/// Longer names are none of those above.
const LONGEST_NAME: usize = 48;
/// How much of a copied text is kept.
const LONGEST_TEXT: usize = 2 * 1024;
/// How much is copied of a document.
const LARGEST_COPY: usize = 16 * 1024;
/// What is nested deeper is passed over.
const DEEPEST: u32 = 120;

/// A few bytes of a text, to be compared.
#[derive(Clone, Copy)]
struct Word {
    bytes: [u8; LONGEST_NAME],
    length: usize,
}

impl Word {
    const EMPTY: Self = Self { bytes: [0; LONGEST_NAME], length: 0 };

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
        }
        self.length = self.length.saturating_add(1);
    }

    /// The text, if it was short enough.
    fn get(&self) -> Option<&[u8]> {
        self.bytes.get(..self.length)
    }

    fn is_any(&self, names: &[&str]) -> bool {
        self.get().is_some_and(|word| names.iter().any(|name| name.as_bytes() == word))
    }
}

/// What the bytes are in the midst of.
#[derive(Clone, Copy)]
enum Inside {
    Nothing,
    Scalar {
        copied: bool,
    },
    Text(Text),
    Escape(Text),
    /// The digits of `\u0000` so far.
    Unicode(Text, u8, u16),
}

/// What becomes of a text.
#[derive(Clone, Copy)]
struct Text {
    role: Role,
    /// How much of it may still be copied; 0 if it is not, or no longer.
    room: usize,
    copied: bool,
    counted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Name,
    Value,
    /// The type of a document, which decides whether its text counts.
    Type,
    Carrier,
}

/// What mattered in a document.
pub(crate) struct Document {
    /// The members that mattered, as JSON.
    pub json: Vec<u8>,
    /// Whether the document calls itself an error.
    pub is_error: bool,
}

/// Reads documents one after the other: each an object, or an item of a list (Gemini streams one long list).
pub(crate) struct Skimmer {
    inside: Inside,
    depth: u32,
    /// For each depth, whether an object is open there, and not a list.
    objects: u128,
    /// For each depth, whether the copy has a member there.
    filled: u128,
    expects_name: bool,
    /// The depth at which documents begin: 1 when they are items of a list, else 0.
    base: u32,
    name: Word,
    /// From which depth on nothing is copied, everything is copied, and all text counts.
    skip: Option<u32>,
    whole: Option<u32>,
    arguments: Option<u32>,
    copy: Vec<u8>,
    matters: bool,
    is_error: bool,
    kind: Word,
    /// A surrogate that waits for its other half.
    surrogate: u16,
    text: Estimator,
    /// The count before this document.
    before: Estimator,
    /// What came in members called `bytes`, since it was last taken.
    carried: Vec<u8>,
}

impl Default for Skimmer {
    fn default() -> Self {
        Self {
            inside: Inside::Nothing,
            depth: 0,
            objects: 0,
            filled: 0,
            expects_name: false,
            base: 0,
            name: Word::EMPTY,
            skip: None,
            whole: None,
            arguments: None,
            copy: Vec::new(),
            matters: false,
            is_error: false,
            kind: Word::EMPTY,
            surrogate: 0,
            text: Estimator::new(),
            before: Estimator::new(),
            carried: Vec::new(),
        }
    }
}

impl Skimmer {
    /// Reads on, up to the end of a document: gives how many bytes that took. `None` when all were read and none ended.
    pub(crate) fn skim(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if let Inside::Text(text) = self.inside
                && let Some(rest) = bytes.get(at..)
            {
                at += self.take_text(text, rest);
                continue;
            }
            at += 1;
            if self.take(byte) {
                return Some(at);
            }
        }
        None
    }

    /// What mattered in the document that has ended, if anything did, and makes ready for the next.
    pub(crate) fn end(&mut self) -> Option<Document> {
        let is_error = self.is_error;
        if self.repeats() {
            self.text = self.before;
        }
        let json = std::mem::take(&mut self.copy);
        let matters = self.matters || is_error;
        self.forget();
        matters.then_some(Document { json, is_error })
    }

    /// Gives up a document that has not ended, and makes ready for another.
    pub(crate) fn reset(&mut self) {
        (self.depth, self.objects, self.base) = (0, 0, 0);
        self.inside = Inside::Nothing;
        self.expects_name = false;
        self.forget();
    }

    fn forget(&mut self) {
        self.before = self.text;
        (self.skip, self.whole, self.arguments) = (None, None, None);
        self.copy.clear();
        self.filled = 0;
        (self.matters, self.is_error) = (false, false);
        self.kind = Word::EMPTY;
    }

    /// Tokens of the generated text so far, estimated.
    pub(crate) fn tokens(&self) -> u64 {
        self.text.tokens()
    }

    /// Base64 that documents carried since this was last asked.
    pub(crate) fn carried(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.carried)
    }

    /// Events of `OpenAI`'s responses and Cohere's chat that say again what their deltas said.
    fn repeats(&self) -> bool {
        let Some(kind) = self.kind.get() else { return false };
        (kind.starts_with(b"response.") && !kind.ends_with(b".delta")) || kind == b"stream-end"
    }

    fn is_object(&self) -> bool {
        (1..=DEEPEST).contains(&self.depth) && self.objects >> self.depth & 1 == 1
    }

    fn is_at_root(&self) -> bool {
        self.depth == self.base + 1
    }

    /// Takes in one byte that is not inside a text; tells whether a document ends with it.
    fn take(&mut self, byte: u8) -> bool {
        match self.inside {
            Inside::Nothing | Inside::Text(_) => {}
            Inside::Scalar { copied } => match byte {
                b',' | b'}' | b']' | b':' | b'"' | b'{' | b'[' | b' ' | b'\t' | b'\n' | b'\r' => {
                    self.inside = Inside::Nothing;
                }
                _ => {
                    if copied {
                        self.copy.push(byte);
                    }
                    return false;
                }
            },
            Inside::Escape(text) => {
                self.escaped(text, byte);
                return false;
            }
            Inside::Unicode(text, digits, value) => {
                self.unicode(text, digits, value, byte);
                return false;
            }
        }
        match byte {
            b'{' | b'[' => self.open(byte),
            b'}' | b']' => return self.close(byte),
            b'"' => self.quote(),
            b',' => self.expects_name = self.is_object(),
            b':' => self.expects_name = false,
            b' ' | b'\t' | b'\n' | b'\r' => {}
            _ => self.scalar(byte),
        }
        false
    }

    fn open(&mut self, byte: u8) {
        let is_object = byte == b'{';
        if self.depth == 0 && !is_object {
            self.base = 1;
        } else if self.depth == self.base {
            if is_object {
                self.copy.push(byte);
            } else {
                self.skip = Some(self.depth + 1);
            }
        } else {
            let whole = self.whole.is_some() || self.is_whole();
            let copied = self.wants(whole || (is_object && self.name.is_any(WRAPPERS)));
            if copied {
                self.write_name();
                self.copy.push(byte);
            } else if self.skip.is_none() {
                self.skip = Some(self.depth + 1);
            }
            if copied && whole && self.whole.is_none() {
                self.whole = Some(self.depth + 1);
                self.matters = true;
            }
            if is_object && self.arguments.is_none() && self.whole.is_none() && self.name.is_any(ARGUMENTS) {
                self.arguments = Some(self.depth + 1);
            }
        }
        self.depth = self.depth.saturating_add(1);
        if self.depth <= DEEPEST {
            let bit = 1_u128 << self.depth;
            self.filled &= !bit;
            self.objects = if is_object { self.objects | bit } else { self.objects & !bit };
        } else if self.skip.is_none() {
            self.skip = Some(self.depth);
        }
        self.expects_name = self.is_object();
    }

    fn close(&mut self, byte: u8) -> bool {
        if self.depth == 0 {
            return false;
        }
        if self.skip.is_none() && self.depth > self.base {
            self.copy.push(byte);
        }
        for from in [&mut self.skip, &mut self.whole, &mut self.arguments] {
            if *from == Some(self.depth) {
                *from = None;
            }
        }
        self.depth -= 1;
        self.expects_name = false;
        if self.depth == 0 && self.base == 1 {
            self.base = 0;
            return false;
        }
        self.depth == self.base
    }

    fn is_whole(&self) -> bool {
        self.is_object() && self.name.is_any(WHOLE)
    }

    /// Whether a value is copied that is wanted.
    fn wants(&self, wanted: bool) -> bool {
        let named = !self.is_object() || self.name.get().is_some();
        self.skip.is_none() && wanted && named && self.copy.len() < LARGEST_COPY
    }

    /// Writes what comes before a value.
    fn write_name(&mut self) {
        let bit = 1_u128 << self.depth.min(DEEPEST);
        if self.filled & bit != 0 {
            self.copy.push(b',');
        }
        self.filled |= bit;
        if self.is_object() {
            self.copy.push(b'"');
            self.copy.extend_from_slice(self.name.get().unwrap_or_default());
            self.copy.extend_from_slice(b"\":");
        }
    }

    fn scalar(&mut self, byte: u8) {
        let whole = self.is_whole();
        let copied = self.depth > self.base && self.wants(self.whole.is_some() || whole);
        if copied {
            self.write_name();
            self.copy.push(byte);
            // Not for null, true and false.
            self.matters |= whole && (byte.is_ascii_digit() || byte == b'-');
        }
        self.inside = Inside::Scalar { copied };
    }

    fn quote(&mut self) {
        if self.expects_name {
            self.name.length = 0;
            let text = Text { role: Role::Name, room: 0, copied: false, counted: false };
            self.inside = Inside::Text(text);
            return;
        }
        let whole = self.is_whole();
        let wanted = self.whole.is_some() || whole || (self.is_object() && self.name.is_any(LABELS));
        let copied = self.depth > self.base && self.wants(wanted);
        if copied {
            self.write_name();
            self.copy.push(b'"');
            self.matters |= whole;
        }
        let role = if self.is_at_root() && self.name.is_any(&["type", "event_type", "object"]) {
            self.kind.length = 0;
            Role::Type
        } else if self.is_at_root() && self.name.is_any(&[CARRIER]) {
            Role::Carrier
        } else {
            Role::Value
        };
        let counted = self.whole.is_none()
            && !whole
            && self.depth > self.base
            && (self.arguments.is_some() || self.name.is_any(TEXT));
        self.inside = Inside::Text(Text { role, room: LONGEST_TEXT, copied, counted });
    }

    /// Takes in the beginning of `bytes`, up to the end of the text or to an escape; gives how much that was.
    fn take_text(&mut self, mut text: Text, bytes: &[u8]) -> usize {
        let plain = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\')).unwrap_or(bytes.len());
        let (run, rest) = bytes.split_at_checked(plain).unwrap_or((bytes, &[]));
        match text.role {
            Role::Name => run.iter().for_each(|byte| self.name.push(*byte)),
            Role::Type => run.iter().for_each(|byte| self.kind.push(*byte)),
            Role::Carrier => self.carried.extend_from_slice(run),
            Role::Value => {}
        }
        if !run.is_empty() {
            self.surrogate = 0;
        }
        if text.counted {
            self.text.feed(run);
        }
        if text.copied && text.room > 0 {
            // Whole characters only.
            let starts = |at: &usize| run.get(*at).is_some_and(|byte| byte & 0xc0 != 0x80);
            let cut = (text.room..run.len()).find(starts);
            self.copy.extend_from_slice(run.get(..cut.unwrap_or(run.len())).unwrap_or_default());
            text.room = if cut.is_some() { 0 } else { text.room.saturating_sub(run.len()).max(1) };
        }
        match rest.first() {
            Some(b'\\') => {
                self.inside = Inside::Escape(text);
                plain + 1
            }
            Some(_) => {
                if text.copied {
                    self.copy.push(b'"');
                }
                self.is_error |= text.role == Role::Type && self.kind.get() == Some(b"error");
                self.surrogate = 0;
                self.inside = Inside::Nothing;
                plain + 1
            }
            None => {
                self.inside = Inside::Text(text);
                plain
            }
        }
    }

    fn escaped(&mut self, mut text: Text, byte: u8) {
        match text.role {
            Role::Name => {
                self.name.push(b'\\');
                self.name.push(byte);
            }
            Role::Carrier if byte == b'/' => self.carried.push(byte),
            _ => {}
        }
        if text.copied {
            // The halves of a pair stay together: one alone is no JSON.
            if text.room > 12 || (text.room > 0 && self.surrogate != 0) {
                self.copy.extend_from_slice(&[b'\\', byte]);
                text.room = text.room.saturating_sub(2).max(1);
            } else {
                text.room = 0;
            }
        }
        if byte == b'u' {
            self.inside = Inside::Unicode(text, 0, 0);
            return;
        }
        if text.counted {
            let plain = match byte {
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                b'b' => 8,
                b'f' => 12,
                other => other,
            };
            self.text.feed(&[plain]);
        }
        self.inside = Inside::Text(text);
    }

    fn unicode(&mut self, text: Text, digits: u8, value: u16, byte: u8) {
        let Some(digit) = (byte as char).to_digit(16).and_then(|digit| u16::try_from(digit).ok()) else {
            // No escape after all; whoever parses the copy will see.
            self.inside = Inside::Text(text);
            return;
        };
        if text.role == Role::Name {
            self.name.push(byte);
        }
        if text.copied && text.room > 0 {
            self.copy.push(byte);
        }
        let value = value << 4 | digit;
        if digits < 3 {
            self.inside = Inside::Unicode(text, digits + 1, value);
            return;
        }
        let first = std::mem::replace(&mut self.surrogate, if (0xd800..0xdc00).contains(&value) { value } else { 0 });
        if text.counted && self.surrogate == 0 {
            let units = [first, value].into_iter().filter(|unit| *unit != 0);
            for char in char::decode_utf16(units).flatten() {
                self.text.feed(char.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        self.inside = Inside::Text(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever comes, little of it is kept.
    #[test]
    fn memory_is_bounded() {
        let parts = [
            r#""error":{"#,
            r#""message":"x"#,
            &"y".repeat(10_000),
            r#"","#,
            r#""code":["#,
            "1,".repeat(3_000).as_str(),
            r"null],",
            &format!(r#""{}":{{"#, "n".repeat(5_000)),
            r#""usage":[{"a":1.5e9},"#,
            r#""text":"","#,
        ]
        .map(str::to_owned);
        for seed in 0..200_usize {
            let mut skimmer = Skimmer::default();
            let mut largest = 0;
            skimmer.skim(b"{");
            for turn in 0..400_usize {
                let part = parts
                    .get((turn * (seed + 1) + turn / 7) % parts.len())
                    .map_or(&[] as &[u8], |part| part.as_bytes());
                let mut rest = part;
                while let Some(read) = skimmer.skim(rest) {
                    rest = rest.get(read..).unwrap_or_default();
                    skimmer.end();
                }
                largest = largest.max(skimmer.copy.capacity());
            }
            assert!(largest <= 4 * LARGEST_COPY, "{largest}");
        }
    }
}
