//! What a call did cost, from the usage in its response.

use super::headers::Headers;
use super::json::{self, Object};
use super::names::Provider;
use super::profile::{CachedTokens, Reservation, bedrock_burndown};
use super::when;
use crate::cost::Cost;

/// Tokens of a call as reported, in the same terms for all providers.
///
/// Providers differ in whether "input" includes what came from the cache (`OpenAI`: yes; Anthropic: no); here it does
/// not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Input that was neither read from the cache nor written to it.
    pub input: u64,
    /// Input read from the provider's cache.
    pub cache_read: u64,
    /// Input written to the provider's cache.
    pub cache_write: u64,
    /// Output, reasoning included.
    pub output: u64,
}

impl Usage {
    /// Finds the usage in a response body, in the data of one event of a stream, or in a whole recorded stream.
    ///
    /// Of a stream's events some carry a part only (Anthropic): [`Usage::merge`] them in order.
    pub fn read(body: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?.trim_ascii();
        if let Some(object) = json::object(text) {
            return Self::find(&object, 0);
        }
        let mut events = text.lines().filter_map(|line| {
            let data = line.strip_prefix("data:").unwrap_or(line).trim_ascii();
            if data.starts_with('{') { Self::find(&json::object(data)?, 0) } else { None }
        });
        let first = events.next()?;
        Some(events.fold(first, Self::merge))
    }

    /// Reads the token counts that Bedrock puts into the headers of `InvokeModel`.
    pub fn from_headers(headers: Headers<'_>) -> Option<Self> {
        let number = |name| headers.get(name).and_then(when::count);
        let input = number("x-amzn-bedrock-input-token-count");
        let output = number("x-amzn-bedrock-output-token-count");
        (input.is_some() || output.is_some()).then(|| Self {
            input: input.unwrap_or(0),
            cache_read: number("x-amzn-bedrock-cache-read-input-token-count").unwrap_or(0),
            cache_write: number("x-amzn-bedrock-cache-write-input-token-count").unwrap_or(0),
            output: output.unwrap_or(0),
        })
    }

    /// What is known after a later report of the same call. Reports are running totals, so the larger number counts.
    #[must_use]
    pub fn merge(self, later: Self) -> Self {
        Self {
            input: self.input.max(later.input),
            cache_read: self.cache_read.max(later.cache_read),
            cache_write: self.cache_write.max(later.cache_write),
            output: self.output.max(later.output),
        }
    }

    /// What the call cost as `provider` counts. `model` matters where models are counted differently (cached tokens of
    /// Haiku 3.5, output of Claude at Bedrock).
    pub fn cost(&self, provider: Provider, model: Option<&str>) -> Cost {
        let profile = provider.profile();
        let model = model.unwrap_or_default();
        let fresh = self.input.saturating_add(self.cache_write);
        let whole = fresh.saturating_add(self.cache_read);
        let (input_tokens, sum) = match profile.cached {
            CachedTokens::Free if counts_cached(provider, model) => (whole, whole),
            CachedTokens::Count => (whole, whole),
            CachedTokens::Free => (fresh, fresh),
            CachedTokens::FreeAsInput => (fresh, whole),
        };
        let tokens = match profile.reservation {
            Reservation::TextOnly => sum,
            _ if provider == Provider::Bedrock => {
                sum.saturating_add(self.output.saturating_mul(bedrock_burndown(model)))
            }
            _ => sum.saturating_add(self.output),
        };
        Cost { requests: 1, tokens, input_tokens, output_tokens: self.output }
    }

    /// The usage object, wherever a provider puts it.
    fn find(object: &Object<'_>, depth: u8) -> Option<Self> {
        // Ollama: members of the response itself.
        if object.contains_key("eval_count") || object.contains_key("prompt_eval_count") {
            return Self::from_object(object);
        }
        for name in ["usage", "usageMetadata", "usage_metadata", "billed_units", "amazon-bedrock-invocationMetrics"] {
            if let Some(usage) = inner(object, name).as_ref().and_then(Self::from_object) {
                return Some(usage);
            }
        }
        // Anthropic's first event, OpenAI's last, Groq's stream, Cohere (its old stream: both), Bedrock's stream.
        ["message", "response", "x_groq", "meta", "delta", "metadata"]
            .iter()
            .filter(|_| depth <= 1)
            .find_map(|name| Self::find(&inner(object, name)?, depth + 1))
    }

    fn from_object(usage: &Object<'_>) -> Option<Self> {
        // Cohere counts billed units; its `tokens` beside them include what is not billed.
        if let Some(billed) = inner(usage, "billed_units") {
            return Self::from_object(&billed);
        }
        let first = |names: &[&str]| names.iter().find_map(|name| number(usage, name));
        let nested = |object: &str, name: &str| number(&inner(usage, object)?, name);
        // With the cache included: OpenAI and its kin, Gemini.
        let gross = first(&["prompt_tokens", "promptTokenCount", "prompt_token_count", "prompt_eval_count"]);
        let net = first(&["input_tokens", "inputTokens", "inputTokenCount"]);
        let cached_details = nested("prompt_tokens_details", "cached_tokens")
            .or_else(|| nested("input_tokens_details", "cached_tokens"))
            .or_else(|| first(&["cachedContentTokenCount", "cached_content_token_count", "prompt_cache_hit_tokens"]));
        let cache_read = first(&["cache_read_input_tokens", "cacheReadInputTokens"]);
        let cache_write = first(&["cache_creation_input_tokens", "cacheWriteInputTokens"]).unwrap_or(0);
        let output = first(&[
            "completion_tokens",
            "output_tokens",
            "outputTokens",
            "outputTokenCount",
            "candidatesTokenCount",
            "candidates_token_count",
            "eval_count",
        ]);
        if gross.is_none() && net.is_none() && output.is_none() {
            return None;
        }
        let thoughts = first(&["thoughtsTokenCount", "thoughts_token_count"]).unwrap_or(0);
        let tools = first(&["toolUsePromptTokenCount"]).unwrap_or(0);
        // OpenAI's Responses API says `input_tokens` too, but with details, and the cache included.
        let includes_cache = gross.is_some() || cached_details.is_some();
        let input = gross.or(net).unwrap_or(0).saturating_add(tools);
        let cache_read = cache_read.or(cached_details).unwrap_or(0);
        Some(Self {
            input: if includes_cache { input.saturating_sub(cache_read) } else { input },
            cache_read,
            cache_write,
            output: output.unwrap_or(0).saturating_add(thoughts),
        })
    }
}

/// Documented: cached reads are free of Anthropic's input limits, but for Haiku 3.5.
fn counts_cached(provider: Provider, model: &str) -> bool {
    provider == Provider::Anthropic && (model.contains("3-5-haiku") || model.contains("haiku-3-5"))
}

fn inner<'a>(object: &Object<'a>, name: &str) -> Option<Object<'a>> {
    json::object(object.get(name)?.get())
}

/// A count; some providers write it as a float (Cohere: `12.0`).
fn number(object: &Object<'_>, name: &str) -> Option<u64> {
    when::count(object.get(name)?.get().as_bytes())
}
