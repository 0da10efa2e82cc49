//! Streams of `OpenAI`'s chat completions tell their usage only when they are asked to. This asks, and takes what was asked
//! for out again, for a caller who did not.

use super::json;
use super::names::Provider;

/// Paths whose streams take `stream_options`.
const PATHS: &[&str] = &["/chat/completions", "/completions"];

/// The first version of Azure's API that takes `stream_options`.
const AZURE_SINCE: &str = "2024-09";

/// Larger events are no report of usage: they are passed on as they come.
const LARGEST: usize = 64 * 1024;

/// The same request, which also asks for the usage at the end of the stream; `None` if it asks already, if it is no
/// stream, or if this provider reports without being asked or refuses to be (Mistral, old versions of Azure's API).
///
/// The rest of the body stays byte for byte.
pub fn ask_for_usage(provider: Provider, path: &str, body: &[u8]) -> Option<Vec<u8>> {
    let (address, query) = path.split_once('?').unwrap_or((path, ""));
    if !PATHS.iter().any(|end| address.trim_end_matches('/').ends_with(end)) || refuses(provider, query) {
        return None;
    }
    let text = std::str::from_utf8(body).ok()?;
    let object = json::object(text)?;
    if object.get("stream").is_none_or(|raw| raw.get() != "true") {
        return None;
    }
    let (from, to, insert) = match object.get("stream_options") {
        None => (text.find('{')? + 1, text.find('{')? + 1, "\"stream_options\":{\"include_usage\":true},".to_owned()),
        Some(options) => {
            let at = (options.get().as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
            let members = json::object(options.get()).unwrap_or_default();
            match members.get("include_usage").map(|raw| raw.get()) {
                Some("true") => return None,
                Some(other) => {
                    let at = (other.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
                    (at, at + other.len(), "true".to_owned())
                }
                None if members.is_empty() => (at, at + options.get().len(), "{\"include_usage\":true}".to_owned()),
                None => (at + 1, at + 1, "\"include_usage\":true,".to_owned()),
            }
        }
    };
    Some([text.get(..from)?, &insert, text.get(to..)?].concat().into_bytes())
}

fn refuses(provider: Provider, query: &str) -> bool {
    match provider {
        Provider::Mistral | Provider::Anthropic | Provider::Gemini | Provider::Bedrock => true,
        Provider::AzureOpenAi => {
            let version = query.split('&').find_map(|pair| pair.strip_prefix("api-version="));
            version.is_some_and(|version| version.starts_with("20") && version < AZURE_SINCE)
        }
        _ => false,
    }
}

/// Takes the event that only reports the usage out of a stream, and hands all else on as it is.
///
/// An event is held back until it has come whole.
#[derive(Debug, Default)]
pub struct UsageFilter {
    held: Vec<u8>,
    /// Whether the event under way is too large to be a report.
    passing: bool,
}

impl UsageFilter {
    /// The bytes to hand on when these have come.
    pub fn feed(&mut self, chunk: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.held.len() + chunk.len());
        let mut rest = chunk;
        while !rest.is_empty() {
            let from = self.held.len().saturating_sub(3);
            let line_end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
            let (piece, after) = rest.split_at_checked(line_end).unwrap_or((rest, &[]));
            rest = after;
            self.held.extend_from_slice(piece);
            let tail = self.held.get(from..).unwrap_or_default();
            let ends = tail.ends_with(b"\n\n") || tail.ends_with(b"\n\r\n");
            if ends {
                if self.passing || !is_usage_event(&self.held) {
                    out.extend_from_slice(&self.held);
                }
                self.held.clear();
                self.passing = false;
            } else if self.passing || self.held.len() > LARGEST {
                self.passing = true;
                // The last bytes may begin the end.
                let keep = self.held.len().saturating_sub(3);
                out.extend(self.held.drain(..keep));
            }
        }
        out
    }

    /// What is left when the stream has ended.
    pub fn end(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        if !self.passing && is_usage_event(&held) { Vec::new() } else { held }
    }
}

/// Whether an event does nothing but report the usage: a chunk without choices, but with usage.
pub fn is_usage_event(event: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(event) else { return false };
    let mut data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    let (Some(data), None) = (data.next(), data.next()) else { return false };
    // Most chunks are told apart without being parsed.
    if !data.contains("\"usage\"") {
        return false;
    }
    let Some(object) = json::object(data.trim()) else { return false };
    let no_choices = object.get("choices").and_then(|raw| json::list(raw.get())).is_some_and(|list| list.is_empty());
    no_choices && object.get("usage").is_some_and(|raw| raw.get().starts_with('{'))
}
