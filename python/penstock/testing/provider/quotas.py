"""The quotas of all models: one each, made when the model is first asked for."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .policy import Policy
    from .quota import Quota

__all__ = ["Quotas"]


class Quotas:
    """A quota for each model, of the policy that names it, or else of the usual one."""

    def __init__(self, usual: Policy, by_model: Mapping[str, Policy]) -> None:
        self._usual = usual
        self._by_model = by_model
        self._quotas: dict[str, Quota] = {}

    def policy(self, model: str) -> Policy:
        """Find a model's policy: that of its name, or of the first pattern that it matches."""
        found = self._by_model.get(model)
        if found is not None:
            return found
        patterns = (policy for pattern, policy in self._by_model.items() if fnmatch.fnmatchcase(model, pattern))
        return next(patterns, self._usual)

    def of(self, model: str) -> Quota:
        """Find a model's quota."""
        quota = self._quotas.get(model)
        if quota is None:
            quota = self._quotas[model] = self.policy(model).new_quota()
        return quota

    def available(self, start: int, end: int) -> dict[str, int]:
        """Add up what fresh quotas of all models that were asked for could have admitted in this time."""
        total: dict[str, int] = {}
        for model in list(self._quotas):
            for dimension, amount in self.policy(model).new_quota().available(start, end).items():
                total[dimension] = total.get(dimension, 0) + amount
        return total
