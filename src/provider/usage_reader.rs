//! What a call used, read from its answer as that arrives: JSON, server-sent events, lines of JSON or Bedrock's event
//! stream. Nothing of the answer is kept, so a stream of any length takes the same memory.

use super::events::{self, Events};
use super::frames::{self, Frames};
use super::headers::Headers;
use super::names::Provider;
use super::rules::kind_of_code;
use super::skim::{Document, Skimmer};
use super::usage::Usage;
use super::verdict::Kind;
use super::{Reader, Reading};
use crate::cost::Cost;

/// How much of an error that is not JSON is kept.
const LONGEST_PROSE: usize = 2 * 1024;

/// How the answer is written.
enum Form {
    /// Not known yet: the first byte tells.
    Unknown,
    /// JSON, one document or one after the other.
    Json,
    Events(Events),
    Frames(Frames),
    /// Sound, pictures, files.
    Opaque,
}

/// Reads the usage in an answer, and an error inside it, from its decoded body as that comes.
pub struct UsageReader {
    reader: Reader,
    model: Option<String>,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    form: Form,
    skimmer: Skimmer,
    /// For the documents that Bedrock puts into others, in base64.
    inner: Skimmer,
    base64: Base64,
    /// The exception that the frame under way tells of.
    exception: Option<String>,
    /// The beginning of the data of an error event.
    prose: Vec<u8>,
    usage: Option<Usage>,
    charged: Option<u64>,
    reading: Option<Reading>,
}

impl UsageReader {
    /// A reader of an answer of `provider` to a call of `model`, with these headers.
    ///
    /// `content_type` tells how the body is written; where it does not, the first byte of the body does.
    pub fn new(provider: Provider, model: Option<&str>, content_type: &str, headers: Headers<'_>) -> Self {
        let form = Self::form(&content_type.to_ascii_lowercase());
        let reader = Reader::new(match provider {
            Provider::Unknown if matches!(form, Form::Frames(_)) => Provider::Bedrock,
            Provider::Unknown => Provider::from_headers(headers),
            known => known,
        });
        let query_cost = headers.get("x-ratelimit-tokens-query-cost").and_then(super::when::count);
        Self {
            reader,
            model: model.map(str::to_owned),
            headers: headers.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
            form,
            skimmer: Skimmer::default(),
            inner: Skimmer::default(),
            base64: Base64::default(),
            exception: None,
            prose: Vec::new(),
            usage: Usage::from_headers(headers),
            charged: query_cost,
            reading: None,
        }
    }

    fn form(content_type: &str) -> Form {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        match kind {
            "text/event-stream" => Form::Events(Events::new()),
            "application/vnd.amazon.eventstream" => Form::Frames(Frames::new()),
            _ if kind.contains("json") => Form::Json,
            _ if ["audio/", "image/", "video/", "multipart/"].iter().any(|start| kind.starts_with(start)) => {
                Form::Opaque
            }
            "application/octet-stream" => Form::Opaque,
            _ => Form::Unknown,
        }
    }

    /// Takes in the next bytes of the body, decompressed, cut anywhere. `now` is the caller's clock in seconds since the
    /// Unix epoch.
    pub fn feed(&mut self, mut bytes: &[u8], now: f64) {
        if matches!(self.form, Form::Unknown) {
            // White space before it belongs to neither form: with it gone, it makes no difference where the body is cut.
            bytes = bytes.trim_ascii_start();
            let Some(first) = bytes.first() else { return };
            self.form = if matches!(first, b'{' | b'[') { Form::Json } else { Form::Events(Events::new()) };
        }
        match std::mem::replace(&mut self.form, Form::Opaque) {
            Form::Json => {
                self.documents(bytes, false, now);
                self.form = Form::Json;
            }
            Form::Events(mut events) => {
                while let Some(part) = events.next(&mut bytes) {
                    match part {
                        events::Part::Data(data) => {
                            let failed = matches!(events.name(), b"error" | b"response.failed");
                            self.data(data, failed, now);
                        }
                        events::Part::End => {
                            self.failed_in_prose(now);
                            self.skimmer.reset();
                        }
                    }
                }
                self.form = Form::Events(events);
            }
            Form::Frames(mut frames) => {
                while let Some(part) = frames.next(&mut bytes) {
                    self.frame(&part, now);
                }
                self.form = Form::Frames(frames);
            }
            other => self.form = other,
        }
    }

    /// What the call cost, as far as the provider has reported it, and as it counts. Reports of a stream grow.
    pub fn cost(&self) -> Option<Cost> {
        let cost = self.usage.map(|usage| usage.cost(self.reader.provider, self.model.as_deref()));
        match self.charged {
            Some(tokens) => Some(Cost { tokens, ..cost.unwrap_or(Cost { requests: 1, ..Cost::default() }) }),
            None => cost,
        }
    }

    /// What the provider has reported, uncounted.
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// Output tokens so far, estimated from the text that has come.
    pub fn estimate(&self) -> u64 {
        self.skimmer.tokens().saturating_add(self.inner.tokens())
    }

    /// What an error inside the answer says, if there was one: the first.
    pub fn error(&self) -> Option<&Reading> {
        self.reading.as_ref()
    }

    /// Who answers: as given, or as the headers show.
    pub fn provider(&self) -> Provider {
        self.reader.provider
    }

    fn data(&mut self, data: &[u8], failed: bool, now: f64) {
        if failed && self.prose.len() < LONGEST_PROSE {
            let room = LONGEST_PROSE - self.prose.len();
            self.prose.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
        }
        self.documents(data, failed, now);
    }

    /// An event that says that it is an error, but in words.
    fn failed_in_prose(&mut self, now: f64) {
        let prose = std::mem::take(&mut self.prose);
        let text = String::from_utf8_lossy(&prose);
        if !text.trim().is_empty() && self.reading.is_none() {
            let data = serde_json::json!({ "error": text.trim() }).to_string();
            self.weigh(data.as_bytes(), now);
        }
    }

    fn frame(&mut self, part: &frames::Part<'_>, now: f64) {
        match part {
            frames::Part::Begin(exception) => {
                self.skimmer.reset();
                self.prose.clear();
                self.exception.clone_from(exception);
            }
            frames::Part::Payload(payload) if self.exception.is_some() => {
                let room = LONGEST_PROSE.saturating_sub(self.prose.len());
                self.prose.extend_from_slice(payload.get(..room.min(payload.len())).unwrap_or_default());
            }
            frames::Part::Payload(payload) => self.documents(payload, false, now),
            frames::Part::End => {
                let Some(exception) = self.exception.take() else { return };
                let body = std::mem::take(&mut self.prose);
                let mut pairs = self.pairs();
                pairs.push((b"x-amzn-errortype", exception.as_bytes()));
                let is_fatal = kind_of_code(&exception) == Some(Kind::Fatal);
                let status = if is_fatal { 400 } else { 500 };
                let reading = self.reader.read(status, Headers::new(&pairs), &body, now);
                self.reading.get_or_insert(reading);
            }
        }
    }

    /// Reads documents from the next bytes. `failed` says that their event calls itself an error.
    fn documents(&mut self, mut bytes: &[u8], failed: bool, now: f64) {
        while let Some(read) = self.skimmer.skim(bytes) {
            bytes = bytes.get(read..).unwrap_or_default();
            self.carried(now);
            self.base64 = Base64::default();
            self.inner.reset();
            if let Some(document) = self.skimmer.end() {
                self.prose.clear();
                if failed {
                    self.prose.extend_from_slice(bytes.get(..LONGEST_PROSE.min(bytes.len())).unwrap_or_default());
                }
                self.take(&document, failed, now);
            }
        }
        self.carried(now);
    }

    fn carried(&mut self, now: f64) {
        let carried = self.skimmer.carried();
        if carried.is_empty() || self.reader.provider != Provider::Bedrock {
            return;
        }
        let decoded = self.base64.decode(&carried);
        let mut bytes = decoded.as_slice();
        while let Some(read) = self.inner.skim(bytes) {
            bytes = bytes.get(read..).unwrap_or_default();
            if let Some(document) = self.inner.end() {
                self.take(&document, false, now);
            }
        }
    }

    /// A document in which something mattered.
    fn take(&mut self, document: &Document, failed: bool, now: f64) {
        let json = document.json.as_slice();
        if let Some(usage) = Usage::read(json) {
            self.usage = Some(self.usage.map_or(usage, |known| known.merge(usage)));
        }
        if self.reading.is_none() {
            self.weigh(json, now);
        }
        if self.reading.is_none() && (failed || document.is_error) {
            let wrapped = [b"{\"error\":", json, b"}"].concat();
            self.weigh(&wrapped, now);
        }
    }

    fn weigh(&mut self, data: &[u8], now: f64) {
        let pairs = self.pairs();
        let reading = self.reader.read_event(Headers::new(&pairs), data, now);
        self.reading = reading;
    }

    fn pairs(&self) -> Vec<(&[u8], &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect()
    }
}

/// Decodes base64 as it comes.
#[derive(Default)]
struct Base64 {
    bits: u32,
    count: u32,
}

impl Base64 {
    fn decode(&mut self, text: &[u8]) -> Vec<u8> {
        let mut decoded = Vec::with_capacity(text.len() / 4 * 3 + 3);
        for byte in text {
            let value = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' | b'-' => 62,
                b'/' | b'_' => 63,
                _ => continue,
            };
            self.bits = self.bits << 6 | u32::from(value);
            self.count += 6;
            if self.count >= 8 {
                self.count -= 8;
                decoded.push(self.bits.checked_shr(self.count).unwrap_or(0).to_le_bytes()[0]);
            }
        }
        decoded
    }
}
