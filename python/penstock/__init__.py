"""Penstock: a gate in front of LLM provider calls."""
from penstock._core import Limiter, Permit, Rate
