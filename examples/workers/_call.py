"""A call of a provider over HTTP, with what every Python has: the examples here are about processes, not about SDKs."""

from __future__ import annotations

import json
import urllib.request


def complete(base_url: str, text: str) -> str:
    """Ask a chat model; 20 tokens at the most."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], "max_tokens": 20}
    headers = {"content-type": "application/json", "authorization": "Bearer any"}
    request = urllib.request.Request(f"{base_url}/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return str(json.load(response)["choices"][0]["message"]["content"])
