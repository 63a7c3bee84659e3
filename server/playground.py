"""The page /playground: files of `page/`, with nothing from elsewhere, under a strict policy."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, RedirectResponse, Response

PATH: Final = "/playground"
FOLDER: Final = Path(__file__).with_name("page")
FILES: Final = {file.name for file in FOLDER.iterdir()}
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

api = APIRouter(include_in_schema=False)


@api.get("/")
async def root() -> Response:
    """Whoever opens the server in a browser wants to see something."""
    return RedirectResponse(PATH.removeprefix("/"))


@api.get(PATH)
async def page() -> Response:
    """The page. It knows nothing secret: its questions to the API carry the key."""
    return FileResponse(FOLDER / "index.html", headers=HEADERS)


@api.get(PATH + "/{name}")
async def part(name: str) -> Response:
    """A file that the page loads."""
    if name not in FILES:
        raise HTTPException(404, f"There is no {PATH}/{name[:80]}.")
    return FileResponse(FOLDER / name, headers=HEADERS)
