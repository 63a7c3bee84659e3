"""What a client may choose from: modes and presets; and the presets' reload."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Literal

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel
from vllm import envs
from vllm.entrypoints.serve.engine.protocol import ErrorResponse, ModelCard

from routing.policy.modes import MODES
from routing.policy.presets import PresetError, Presets, near
from routing.policy.schema import mode_schema
from server.app import Galton

api = APIRouter(prefix="/v1/routing", tags=["routing"])
models = APIRouter()


class Mode(BaseModel):
    """json_schema: a `routing` object of that mode, with this model's ranges and defaults."""

    id: str
    object: Literal["routing.mode"] = "routing.mode"
    description: str
    json_schema: dict[str, Any]


class ModeList(BaseModel):
    """Every mode."""

    object: Literal["list"] = "list"
    data: list[Mode]


class Preset(BaseModel):
    """models: the names that choose it. default: whether it serves who chooses nothing.

    results: what `galton tune` measured of it; empty where it was written by hand.
    """

    id: str
    object: Literal["routing.preset"] = "routing.preset"
    description: str
    policy: dict[str, Any]
    models: list[str]
    default: bool
    results: dict[str, Any]


class PresetList(BaseModel):
    """Every preset in force."""

    object: Literal["list"] = "list"
    data: list[Preset]


@api.get("/policies", response_model=ModeList)
async def list_policies(raw_request: Request) -> ModeList:
    """The modes with their parameters, ranges and defaults, in JSON Schema."""
    spec = _galton(raw_request).spec
    return ModeList(
        data=[
            Mode(id=mode.name, description=mode.meaning, json_schema=mode_schema(mode, spec))
            for mode in MODES.values()
        ]
    )


@api.get("/presets", response_model=PresetList)
async def list_presets(raw_request: Request) -> PresetList:
    """The presets, and the models by which each is chosen."""
    return _listed(_galton(raw_request).presets)


@api.post(
    "/presets/reload",
    response_model=PresetList,
    responses={status: {"model": ErrorResponse} for status in (400, 403)},
)
async def reload(raw_request: Request) -> PresetList:
    """Read the presets file again; a bad one changes nothing. Needs a server with an API key."""
    galton = _galton(raw_request)
    if not any(raw_request.app.state.args.api_key or [envs.VLLM_API_KEY]):
        raise HTTPException(
            HTTPStatus.FORBIDDEN,
            "A server without --api-key cannot tell who asks: reload with the signal SIGHUP.",
        )
    path = galton.file.path
    if path is None:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "The server was started without presets.")
    try:
        galton.reload()
    except PresetError as error:
        shown = str(error).replace(str(path), path.name)  # vLLM hides whole paths from clients
        raise HTTPException(HTTPStatus.BAD_REQUEST, shown) from None
    return _listed(galton.presets)


@models.get(
    "/v1/models/{name:path}", response_model=ModelCard, responses={404: {"model": ErrorResponse}}
)
async def retrieve_model(name: str, raw_request: Request) -> ModelCard:
    """One model, or a preset's."""
    served = raw_request.app.state.openai_serving_models
    cards = {card.id: card for card in (await served.show_available_models()).data}
    if name not in cards:
        message = f"The model `{name[:80]}` does not exist.{near(name, cards)}"
        raise HTTPException(HTTPStatus.NOT_FOUND, message)
    return cards[name]


def _galton(raw_request: Request) -> Galton:
    galton: Galton = raw_request.app.state.galton
    return galton


def _listed(presets: Presets) -> PresetList:
    return PresetList(
        data=[
            Preset(
                id=preset.name,
                description=preset.description,
                policy=preset.shown(),
                models=[alias for alias, name in presets.aliases.items() if name == preset.name],
                default=preset.name == presets.default,
                results=dict(preset.results),
            )
            for preset in presets.named.values()
        ]
    )
