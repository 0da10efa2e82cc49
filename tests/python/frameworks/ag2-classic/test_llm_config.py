"""AG2's `LLMConfig`, which AutoGen 0.2 has not, can be handed over as a dict can."""

from __future__ import annotations

import copy

from autogen import LLMConfig
from counting import at_gate, equal, gate
from test_classic import chat

import penstock
from penstock.testing.provider import FakeProvider


def test_a_configuration_object(provider: FakeProvider) -> None:
    limiter = gate()
    entry = {"model": "gpt-4o-mini", "base_url": provider.base_url, "api_key": "any", "api_type": "openai"}
    config = LLMConfig(entry, cache_seed=None)
    assert penstock.govern(config, limiter) is config
    chat(config)
    chat(copy.deepcopy(config))
    calls = equal(provider, limiter).calls
    assert calls > 0
    penstock.ungovern(config)
    chat(config)
    assert at_gate(limiter).calls == calls
