"""The page /docs: vLLM's, from its files, under Galton's name, with nothing from elsewhere."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import Response

api = APIRouter(include_in_schema=False)
OPENAPI = "/openapi.json"


@api.get("/docs")
async def docs() -> Response:
    """Swagger UI; vLLM serves its files under /static. The icon is the playground's."""
    return get_swagger_ui_html(
        openapi_url=OPENAPI,
        title="Galton - Swagger UI",
        swagger_js_url="/static/swagger-ui-bundle.js",
        swagger_css_url="/static/swagger-ui.css",
        swagger_favicon_url="/playground/icon.svg",
    )


def attach_docs(app: FastAPI) -> None:
    """Add the page; name what it describes."""
    app.title, app.version = "Galton", version("galton")
    app.description = (
        "OpenAI's and Anthropic's API, as vLLM has them, and in each request how its tokens are "
        "routed to experts: the field `routing`."
    )
    app.include_router(api)
