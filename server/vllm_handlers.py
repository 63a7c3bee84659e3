"""The names of models: vLLM's, and one for each preset of each. Answers use the name asked for.

vLLM's handlers all ask one object, `OpenAIServingModels`, which names are served and which
one to answer with. That object becomes an `AliasedModels`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve.engine.protocol import ErrorResponse, ModelCard, ModelList
from vllm.entrypoints.serve.engine.serving import BaseServing

from routing.engine.hooks import wrap
from routing.policy.presets import Presets, near

# The name in the request that this task answers, once vLLM has accepted it.
_asked_for: Final[ContextVar[str | None]] = ContextVar("galton_asked_for", default=None)


class AliasedModels(OpenAIServingModels):
    """vLLM's served models, and the presets in force."""

    presets: Presets

    @classmethod
    def adopt(cls, models: OpenAIServingModels, presets: Presets) -> AliasedModels:
        """Make `models`, which every handler holds already, one of these."""
        models.__class__ = cls
        models.presets = presets
        wrap(BaseServing, "_check_model", _check_model)
        return models

    def is_base_model(self, model_name: str) -> bool:
        """True for aliases too, and for the name that this request was accepted by.

        vLLM asks again later in a request, when a reload may have removed the alias.
        """
        served = super().is_base_model(model_name) or model_name in self.presets.aliases
        return served or model_name == _asked_for.get()

    def model_name(self, lora_request: Any = None) -> str:
        """The name to answer with."""
        asked_for = None if lora_request is not None else _asked_for.get()
        return asked_for or super().model_name(lora_request)

    def names(self) -> list[str]:
        """Every name that a request may give."""
        bases = [model.name for model in self.base_model_paths]
        return [*bases, *self.lora_requests, *self.presets.aliases]

    async def show_available_models(self) -> ModelList:
        """vLLM's list, and a model for each alias."""
        models = await super().show_available_models()
        cards = {card.id: card for card in models.data}
        for base in self.base_model_paths:
            card = cards[base.name]
            for preset in self.presets.named.values():
                models.data.append(
                    ModelCard(
                        id=f"{base.name}-{preset.name}",
                        owned_by=card.owned_by,
                        root=card.root,
                        parent=card.id,
                        max_model_len=card.max_model_len,
                        permission=card.permission,
                        routing={
                            "preset": preset.name,
                            "policy": preset.policy,
                            "description": preset.description,
                        },
                    )
                )
        return models


async def _check_model(
    original: Callable[..., Any], self: BaseServing, request: Any
) -> ErrorResponse | None:
    """Remember the name that is accepted; to one that is not, name near ones."""
    error: ErrorResponse | None = await original(self, request)
    _asked_for.set(request.model if error is None else None)
    if error is not None and error.error.code == 404 and isinstance(self.models, AliasedModels):
        guess = near(request.model, self.models.names())
        error.error.message = f"The model `{request.model[:80]}` does not exist.{guess}"
    return error
