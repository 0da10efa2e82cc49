//! What a call will cost, from its request body.

use std::borrow::Cow;
use std::cell::Cell;

use serde_json::value::RawValue;

use super::json::{self, Object};
use super::names::Provider;
use super::profile::{Reservation, Settlement};
use crate::cost::Cost;

/// Output tokens expected of a call of which nothing is known: an answer of a few paragraphs.
pub const USUAL_OUTPUT: u64 = 256;

/// Deeper nesting than any API has is not followed.
const DEEPEST: u8 = 16;

/// What a request says about its size, before it is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// The model or deployment, from the body or from the path.
    pub model: Option<String>,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Tokens of all text in it: messages, system prompt, tools, schemas. Images, audio and files are not counted.
    pub input_tokens: u64,
    /// The most that each choice may generate, if the request says so.
    pub max_output: Option<u64>,
    /// How many answers are made: `n`, `best_of`, `candidateCount`; at least 1.
    pub choices: u64,
    /// Whether it generates text at all; embeddings, rankings and counts do not.
    pub generates: bool,
    /// Bytes of that text, which the learnt ratio of tokens to bytes is of.
    pub size: u64,
    /// Whether it is answered before it has run (`background` of `OpenAI`'s responses): the answer does not say what it used.
    pub background: bool,
}

/// Members of the request body, and of `generationConfig` and the like, that carry text.
const TEXT: &[&str] = &[
    "messages",
    "input",
    "prompt",
    "suffix",
    "system",
    "instructions",
    "contents",
    "content",
    "systemInstruction",
    "system_instruction",
    "requests",
    "instances",
    "message",
    "chat_history",
    "preamble",
    "query",
    "documents",
    "texts",
    "inputs",
    "inputText",
];

/// Members that are sent to the model as JSON.
const SCHEMAS: &[&str] = &["tools", "functions", "toolConfig", "response_format", "text", "output_config"];

/// Members inside messages whose strings are not text for the model.
const NOT_TEXT: &[&str] = &[
    "type",
    "role",
    "id",
    "tool_call_id",
    "tool_use_id",
    "toolUseId",
    "call_id",
    "status",
    "detail",
    "format",
    "cache_control",
    "cachePoint",
    "mime_type",
    "mimeType",
    "media_type",
    "file_id",
    "image_url",
    "image",
    "images",
    "input_audio",
    "audio",
    "video",
    "file",
    "file_data",
    "fileData",
    "inline_data",
    "inlineData",
    "data",
    "bytes",
    "url",
    "signature",
    "thoughtSignature",
    "thought_signature",
    "encrypted_content",
];

/// Names of the output limit.
const MAX_OUTPUT: &[&str] = &[
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "maxOutputTokens",
    "maxTokens",
    "max_tokens_to_sample",
    "max_gen_len",
    "maxTokenCount",
    "num_predict",
];

/// Names of the number of answers.
const CHOICES: &[&str] = &["best_of", "n", "candidateCount", "num_generations"];

/// Objects in the body that hold such settings.
const SETTINGS: &[&str] =
    &["generationConfig", "generation_config", "inferenceConfig", "textGenerationConfig", "options", "parameters"];

/// Parts of a path that tell a call which generates nothing.
const NOT_GENERATING: &[&str] =
    &["embed", "/moderations", "/rerank", "/rank", "counttokens", "count_tokens", "/tokenize", "/classify", BATCHES];

/// Batches have quotas of their own: what they hold is not counted with the calls that are answered at once.
const BATCHES: &str = "/batches";

/// Ends of paths of calls that take nothing from a quota, though they are posted: files, stored things, counts.
const FREE: &[&str] = &[
    "/files",
    "/uploads",
    "/parts",
    "/complete",
    "/cancel",
    "/vector_stores",
    "/assistants",
    "/threads",
    "/containers",
    "/conversations",
    "/client_secrets",
    "/sessions",
    "/count_tokens",
    ":counttokens",
    "/input_tokens",
    "/cachedcontents",
    "/api/show",
    "/api/pull",
    "/api/push",
    "/api/create",
    "/api/copy",
];

/// Whether a request takes nothing from any quota of calls and tokens: what is listed, looked up, stored, deleted or
/// cancelled.
pub fn is_free(method: &str, path: &str) -> bool {
    if ["get", "head", "options", "delete"].iter().any(|free| method.eq_ignore_ascii_case(free)) {
        return true;
    }
    let path = path.split(['?', '#']).next().unwrap_or(path).trim_end_matches('/').to_ascii_lowercase();
    FREE.iter().any(|end| path.ends_with(end)) || path.contains("/upload/")
}

impl Call {
    /// Reads a request: `path` is that of its URL, `estimate` gives the tokens of a text.
    ///
    /// A body that is not a JSON object (a file upload, no body) is a call with no tokens.
    pub fn read(path: &str, body: &[u8], estimate: &dyn Fn(&str) -> u64) -> Self {
        let lower_path = path.to_ascii_lowercase();
        let mut call = Self {
            model: model_in(path),
            stream: ["streamgeneratecontent", "-stream", "invoke-with-response-stream"]
                .iter()
                .any(|part| lower_path.contains(part)),
            choices: 1,
            generates: !NOT_GENERATING.iter().any(|part| lower_path.contains(part)),
            ..Self::default()
        };
        let Some(object) = std::str::from_utf8(body).ok().and_then(json::object) else {
            return call;
        };
        if let Some(model) = object.get("model").and_then(|raw| json::string(raw.get())) {
            call.model = Some(model.into_owned());
        }
        call.background = object.get("background").is_some_and(|raw| raw.get() == "true");
        call.stream |= object.get("stream").is_some_and(|raw| raw.get() == "true");
        call.take_settings(&object);
        for settings in SETTINGS.iter().filter_map(|name| object.get(*name)) {
            if let Some(settings) = json::object(settings.get()) {
                call.take_settings(&settings);
            }
        }
        if lower_path.contains(BATCHES) {
            return call;
        }
        let size = Cell::new(0_u64);
        let estimate: &dyn Fn(&str) -> u64 = &|text| {
            size.set(size.get().saturating_add(text.len() as u64));
            estimate(text)
        };
        let mut tokens = 0_u64;
        for (name, raw) in &object {
            if TEXT.contains(&name.as_str()) {
                tokens = tokens.saturating_add(text_tokens(raw, estimate, 0));
            } else if SCHEMAS.contains(&name.as_str()) {
                tokens = tokens.saturating_add(estimate(raw.get()));
            }
        }
        call.input_tokens = tokens;
        call.size = size.get();
        call
    }

    /// What the call costs when `provider` admits it.
    ///
    /// `expected_output` is what such a call is known to generate, from earlier ones; without it, [`USUAL_OUTPUT`].
    /// It counts where `max_tokens` reserves nothing (Anthropic, Mistral, ...) or is not set.
    pub fn cost(&self, provider: Provider, expected_output: Option<u64>) -> Cost {
        self.cost_scaled(provider, expected_output, 1.0)
    }

    /// [`Call::cost`], where the input takes `scale` times as many tokens as estimated: what the model was learnt to take.
    pub fn cost_scaled(&self, provider: Provider, expected_output: Option<u64>, scale: f64) -> Cost {
        let choices = self.choices.max(1);
        let input = scaled(self.input_tokens, scale);
        let expected = if self.generates {
            let expected = expected_output.unwrap_or(USUAL_OUTPUT);
            self.max_output.map_or(expected, |max| max.min(expected)).saturating_mul(choices)
        } else {
            0
        };
        let maximum = self.max_output.filter(|_| self.generates).map(|max| max.saturating_mul(choices));
        let (tokens, output_tokens) = match provider.profile().reservation {
            // The estimate is said to be made from the number of characters: no less than the usual four to a token.
            Reservation::LargerOfTextAndMax => {
                let text = input.max(self.size.div_ceil(4));
                (text.max(maximum.unwrap_or(0)), maximum.unwrap_or(expected))
            }
            Reservation::TextPlusMax { unset } => {
                let unset = unset.filter(|_| self.generates).unwrap_or(expected);
                let output = maximum.unwrap_or(unset);
                (input.saturating_add(output), output)
            }
            Reservation::TextOnly => (input, expected),
            Reservation::Usage => (input.saturating_add(expected), expected),
        };
        Cost { requests: 1, tokens, input_tokens: input, output_tokens }
    }

    /// What `provider` counts in the end of a call that was reported to have `used` so much.
    ///
    /// Where a reservation is not known to be given back (`OpenAI`: the larger of text and `max_tokens`), that is the
    /// reservation itself, if the request limited its output; what such a call then generates is not counted again.
    pub fn settled(&self, provider: Provider, used: &Cost) -> Cost {
        let profile = provider.profile();
        let kept = profile.reservation == Reservation::LargerOfTextAndMax && profile.settlement != Settlement::ToUsage;
        let Some(maximum) = self.max_output.filter(|_| self.generates && kept) else { return *used };
        Cost { tokens: used.input_tokens.max(maximum.saturating_mul(self.choices.max(1))), ..*used }
    }

    fn take_settings(&mut self, object: &Object<'_>) {
        let number = |name: &&str| object.get(*name).and_then(|raw| json::number(raw.get()));
        // -1 (Ollama: no limit) is not a u64, and so no limit.
        self.max_output = self.max_output.or_else(|| MAX_OUTPUT.iter().find_map(number));
        self.choices = CHOICES.iter().filter_map(number).fold(self.choices, u64::max);
    }
}

/// So many tokens, times `scale`; unchanged by a scale that is none.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a cast saturates
fn scaled(tokens: u64, scale: f64) -> u64 {
    if scale.is_finite() && scale > 0.0 { (tokens as f64 * scale).round() as u64 } else { tokens }
}

/// The model in paths such as `/v1beta/models/gemini-2.5-flash:generateContent` (Google), `/model/ID/converse`
/// (Bedrock) and `/openai/deployments/NAME/chat/completions` (Azure).
fn model_in(path: &str) -> Option<String> {
    let path = path.split(['?', '#']).next().unwrap_or(path);
    let mut segments = path.split('/');
    while let Some(segment) = segments.next() {
        if matches!(segment, "models" | "model" | "deployments") {
            let name = segments.next().unwrap_or_default();
            // Google's method follows a colon; the version of a Bedrock model does too ("...-v1:0").
            let name = name.rsplit_once(':').filter(|(_, method)| method.len() > 3).map_or(name, |(model, _)| model);
            return Some(name.replace("%3A", ":").replace("%3a", ":")).filter(|name| !name.is_empty());
        }
    }
    None
}

/// Tokens of all text in a part of a request.
fn text_tokens(raw: &RawValue, estimate: &dyn Fn(&str) -> u64, depth: u8) -> u64 {
    let text = raw.get();
    match text.as_bytes().first() {
        _ if depth > DEEPEST => estimate(text),
        Some(b'"') => json::string(text).map_or(0, |text| estimate(&text)),
        Some(b'[') => {
            let items = json::list(text).unwrap_or_default();
            items.iter().fold(0, |sum, item| sum.saturating_add(text_tokens(item, estimate, depth + 1)))
        }
        Some(b'{') => {
            let members = json::object(text).unwrap_or_default();
            members.iter().fold(0, |sum, (name, value)| sum.saturating_add(member_tokens(name, value, estimate, depth)))
        }
        // Input that is tokens already: `"input": [9906, 1917]`.
        Some(b'0'..=b'9') => 1,
        _ => 0,
    }
}

fn member_tokens(name: &str, value: &RawValue, estimate: &dyn Fn(&str) -> u64, depth: u8) -> u64 {
    let is_object = value.get().starts_with('{');
    match name {
        // Arguments and results of tools are shown to the model as JSON, whatever their members are called.
        "input" | "args" | "json" | "response" if is_object => estimate(value.get()),
        "source" => plain_text_source(value).map_or(0, |text| estimate(&text)),
        _ if NOT_TEXT.contains(&name) => 0,
        _ => text_tokens(value, estimate, depth + 1),
    }
}

/// Anthropic's document of plain text: `{"type": "text", "media_type": "text/plain", "data": "..."}`.
fn plain_text_source(source: &RawValue) -> Option<Cow<'_, str>> {
    let source = json::object(source.get())?;
    let is_text = source.get("type").is_some_and(|kind| kind.get() == "\"text\"");
    is_text.then(|| json::string(source.get("data")?.get())).flatten()
}
