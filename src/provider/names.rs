//! Which provider answers, by name, by address and by the look of its answers.

use super::headers::Headers;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Provider {
    /// `OpenAI`.
    OpenAi,
    /// Azure `OpenAI`, Azure AI Foundry and GitHub Models.
    AzureOpenAi,
    /// Anthropic.
    Anthropic,
    /// Gemini API (AI Studio).
    Gemini,
    /// Vertex AI.
    Vertex,
    /// AWS Bedrock.
    Bedrock,
    /// Mistral.
    Mistral,
    /// Groq.
    Groq,
    /// Cohere.
    Cohere,
    /// Together AI.
    Together,
    /// Fireworks AI.
    Fireworks,
    /// `OpenRouter`.
    OpenRouter,
    /// `DeepSeek`.
    DeepSeek,
    /// Ollama.
    Ollama,
    /// vLLM.
    Vllm,
    /// `LiteLLM` proxy.
    LiteLlm,
    /// Anyone else: what most providers do.
    #[default]
    Unknown,
}

impl Provider {
    /// All providers, the unknown last.
    pub const ALL: [Self; 17] = [
        Self::OpenAi,
        Self::AzureOpenAi,
        Self::Anthropic,
        Self::Gemini,
        Self::Vertex,
        Self::Bedrock,
        Self::Mistral,
        Self::Groq,
        Self::Cohere,
        Self::Together,
        Self::Fireworks,
        Self::OpenRouter,
        Self::DeepSeek,
        Self::Ollama,
        Self::Vllm,
        Self::LiteLlm,
        Self::Unknown,
    ];

    /// The name used in code: `openai`, `azure_openai`, ...
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::AzureOpenAi => "azure_openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Vertex => "vertex",
            Self::Bedrock => "bedrock",
            Self::Mistral => "mistral",
            Self::Groq => "groq",
            Self::Cohere => "cohere",
            Self::Together => "together",
            Self::Fireworks => "fireworks",
            Self::OpenRouter => "openrouter",
            Self::DeepSeek => "deepseek",
            Self::Ollama => "ollama",
            Self::Vllm => "vllm",
            Self::LiteLlm => "litellm",
            Self::Unknown => "unknown",
        }
    }

    /// The provider of this name, in our spelling or in that of OpenTelemetry's `gen_ai.provider.name`.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_lowercase().replace(['-', ' '], "_");
        let alias = match name.as_str() {
            "azure" | "azure.ai.openai" | "azure.ai.inference" => Self::AzureOpenAi,
            "gcp.gemini" | "gcp.gen_ai" | "google" => Self::Gemini,
            "gcp.vertex_ai" | "vertex_ai" | "vertexai" => Self::Vertex,
            "aws.bedrock" | "aws_bedrock" => Self::Bedrock,
            "mistral_ai" | "mistralai" => Self::Mistral,
            "together_ai" | "togetherai" => Self::Together,
            "fireworks_ai" => Self::Fireworks,
            _ => return Self::ALL.into_iter().find(|provider| provider.name() == name),
        };
        Some(alias)
    }

    /// The provider at this address: a host name (`api.openai.com`), with a port, or a whole URL.
    ///
    /// vLLM and `LiteLLM` have no address of their own: they are known by their headers, or not at all.
    pub fn from_host(address: &str) -> Self {
        let authority = address.split_once("://").map_or(address, |(_, rest)| rest);
        let authority = authority.split(['/', '?', '#']).next().unwrap_or(authority);
        let host = authority.rsplit('@').next().unwrap_or(authority).to_ascii_lowercase();
        let (host, port) = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (name, port),
            _ => (host.as_str(), ""),
        };
        if port == OLLAMA_PORT {
            return Self::Ollama;
        }
        let host = host.trim_end_matches('.');
        let is_under =
            |domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        if host.starts_with("bedrock")
            && (is_under("amazonaws.com") || is_under("amazonaws.com.cn") || is_under("api.aws"))
        {
            return Self::Bedrock;
        }
        // Regions: `us-central1-aiplatform.googleapis.com`.
        if host.ends_with("-aiplatform.googleapis.com") {
            return Self::Vertex;
        }
        DOMAINS.iter().find(|(domain, _)| is_under(domain)).map_or(Self::Unknown, |(_, provider)| *provider)
    }

    /// The provider that a request goes to: by its host, else by a path that only one provider's API has.
    ///
    /// The paths of `OpenAI`'s API tell nothing: everyone has them.
    pub fn of_request(address: &str, path: &str) -> Self {
        match Self::from_host(address) {
            Self::Unknown => {
                let path = path.split(['?', '#']).next().unwrap_or(path);
                PATHS.iter().find(|(part, _)| path.contains(part)).map_or(Self::Unknown, |(_, provider)| *provider)
            }
            known => known,
        }
    }

    /// The provider that answers with such headers, or `Unknown` if they could be anyone's.
    ///
    /// Plain `x-ratelimit-*` headers in `OpenAI`'s style say nothing: a dozen providers and proxies copy them.
    pub fn from_headers(headers: Headers<'_>) -> Self {
        headers.scan(Self::Unknown).provider
    }
}

/// Where Ollama listens unless told otherwise.
const OLLAMA_PORT: &str = "11434";

/// Domains and who answers there; subdomains count too.
const DOMAINS: &[(&str, Provider)] = &[
    ("api.openai.com", Provider::OpenAi),
    ("openai.azure.com", Provider::AzureOpenAi),
    ("services.ai.azure.com", Provider::AzureOpenAi),
    ("cognitiveservices.azure.com", Provider::AzureOpenAi),
    ("models.inference.ai.azure.com", Provider::AzureOpenAi),
    ("models.github.ai", Provider::AzureOpenAi),
    ("anthropic.com", Provider::Anthropic),
    ("generativelanguage.googleapis.com", Provider::Gemini),
    ("aiplatform.googleapis.com", Provider::Vertex),
    ("mistral.ai", Provider::Mistral),
    ("groq.com", Provider::Groq),
    ("cohere.com", Provider::Cohere),
    ("cohere.ai", Provider::Cohere),
    ("together.xyz", Provider::Together),
    ("together.ai", Provider::Together),
    ("fireworks.ai", Provider::Fireworks),
    ("openrouter.ai", Provider::OpenRouter),
    ("deepseek.com", Provider::DeepSeek),
    ("ollama.com", Provider::Ollama),
];

/// Parts of paths that only one provider's API has: what a proxy or a server of one's own speaks.
const PATHS: &[(&str, Provider)] = &[
    ("/openai/deployments/", Provider::AzureOpenAi),
    ("/v1/messages", Provider::Anthropic),
    ("/publishers/", Provider::Vertex),
    (":generateContent", Provider::Gemini),
    (":streamGenerateContent", Provider::Gemini),
    (":embedContent", Provider::Gemini),
    (":batchEmbedContents", Provider::Gemini),
    (":countTokens", Provider::Gemini),
    ("/api/chat", Provider::Ollama),
    ("/api/generate", Provider::Ollama),
    ("/api/embed", Provider::Ollama),
    ("/converse", Provider::Bedrock),
    ("/invoke", Provider::Bedrock),
];

/// Header names that only one provider sends, by their beginning.
pub(crate) const TELLTALES: &[(&[u8], Provider)] = &[
    (b"x-litellm-", Provider::LiteLlm),
    (b"anthropic-", Provider::Anthropic),
    (b"x-amzn-bedrock-", Provider::Bedrock),
    (b"x-amzn-errortype", Provider::Bedrock),
    (b"x-ratelimit-renewalperiod-", Provider::AzureOpenAi),
    (b"azureml-", Provider::AzureOpenAi),
    (b"apim-request-id", Provider::AzureOpenAi),
    (b"x-ratelimit-over-limit", Provider::Fireworks),
    (b"x-ratelimit-limit-tokens-prompt", Provider::Fireworks),
    (b"fireworks-", Provider::Fireworks),
    (b"x-tokenlimit-", Provider::Together),
    (b"x-ratelimit-limit-req-", Provider::Mistral),
    (b"x-ratelimit-remaining-req-", Provider::Mistral),
    (b"x-ratelimit-tokens-query-cost", Provider::Mistral),
    (b"x-trial-endpoint-call-", Provider::Cohere),
    (b"x-endpoint-monthly-call-limit", Provider::Cohere),
    (b"x-groq-", Provider::Groq),
    (b"x-ds-trace-id", Provider::DeepSeek),
    (b"openai-", Provider::OpenAi),
];
