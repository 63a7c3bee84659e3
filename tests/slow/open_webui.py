"""`make open-webui`: Open WebUI from its package, in Chromium, in front of a Galton.

Does what a user does: finds the presets among the models, chats in a stream, sees the chat get a
title, has the answer made again. Screenshots go to `deploy/frontends/`; binary files stay in the
history for ever, so commit them rarely.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
from playwright.sync_api import Page, expect, sync_playwright

from loadtests.servers import free_port, galton
from tests.shared.browser import FLAGS
from tests.shared.debian import tool
from tests.shared.servers import REPO, Server, eventually, running

FOLDER: Final = REPO / "deploy" / "frontends"
PROGRAM: Final = REPO / ".venv-open-webui" / "bin" / "open-webui"
PRESETS: Final = ("precise", "balanced", "diverse", "fast", "translate", "qa", "write")
CHOSEN: Final = "galton-demo-diverse"
# Beside the address: no account, no look at the internet, no tools, which every chat would offer
# and the server refuses, and of the model, which knows a small world, no more than a title.
SETTINGS: Final = {
    "ENABLE_OLLAMA_API": "False",
    "WEBUI_AUTH": "False",  # one user, without an account
    "OFFLINE_MODE": "True",
    "RAG_EMBEDDING_ENGINE": "openai",
    "DEFAULT_MODEL_METADATA": '{"capabilities": {"builtin_tools": false}}',
    "ENABLE_TAGS_GENERATION": "False",
    "ENABLE_FOLLOW_UP_GENERATION": "False",
    "ENABLE_AUTOCOMPLETE_GENERATION": "False",
    "SCARF_NO_ANALYTICS": "True",
    "ANONYMIZED_TELEMETRY": "False",
}
SECONDS: Final = 180


def main(argv: Sequence[str] | None = None) -> int:
    """0 where all of it worked."""
    parser = argparse.ArgumentParser(prog="make open-webui", description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="for screenshots; %(default)s")
    args = parser.parse_args(argv)
    with (
        tempfile.TemporaryDirectory() as temporary,
        running(galton("serve"), Path(temporary, "galton.log")) as server,
        open_webui(server.url, Path(temporary)) as url,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=tool("chromium"), args=[*FLAGS])
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        page.set_default_timeout(1000 * SECONDS)
        expect.set_options(timeout=1000 * SECONDS)
        page.goto(url)
        try:
            page.get_by_role("button", name="Okay, Let's Go!").click()  # what is new in it
            choose_preset(page, args.out)
            chat(page, server)
            is_titled(page)
            answer_again(page, server)
            assert server.metric("galton_requests_total", outcome="refused") == 0
        finally:
            page.screenshot(path=args.out / "open-webui-chat.png")
            browser.close()
    print("presets listed, answered in a stream, titled, answered again")
    return 0


@contextmanager
def open_webui(galton_url: str, folder: Path) -> Iterator[str]:
    """Its address, once it answers."""
    port = free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        **SETTINGS,
        "OPENAI_API_BASE_URL": f"{galton_url}/v1",
        "OPENAI_API_KEY": "unused",
        "DATA_DIR": str(folder / "data"),
        "WEBUI_SECRET_KEY": "for this run only",
    }
    url = f"http://127.0.0.1:{port}"
    command = [str(PROGRAM), "serve", "--host=127.0.0.1", f"--port={port}"]
    log = folder / "open-webui.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, cwd=folder
        )
    try:
        assert eventually(lambda: process.poll() is not None or _answers(url), SECONDS)
        assert process.poll() is None, log.read_text()[-3000:]
        yield url
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False


def choose_preset(page: Page, out: Path) -> None:
    """All presets stand in the list of models."""
    page.click("#model-selector-model-button")
    for preset in PRESETS:
        expect(page.get_by_text(f"galton-demo-{preset}", exact=True)).to_be_visible()
    page.screenshot(path=out / "open-webui-models.png")
    page.get_by_text(CHOSEN, exact=True).click()


def asked(server: Server) -> float:
    """Requests that ended well by the chosen preset's policy."""
    return server.metric("galton_requests_total", preset="diverse", outcome="ok")


def chat(page: Page, server: Server) -> None:
    """The answer grows."""
    before = asked(server)
    page.locator("#chat-input").fill("Write a poem about the sea.")
    with server.engine_held():  # so that the answer cannot be there before it is looked at
        page.click("#send-message-button")
        assert eventually(lambda: server.load() > 0, SECONDS)
    answer = page.locator("#response-content-container").last
    seen: set[str] = set()

    def is_whole() -> bool:
        seen.add(answer.inner_text() if answer.count() else "")
        return asked(server) > before

    assert eventually(is_whole, SECONDS)
    expect(answer).to_contain_text(re.compile(r"\w+ \w+"))


def is_titled(page: Page) -> None:
    """By a request of Open WebUI's own, to the model."""
    expect(page.locator("#sidebar-chat-item").first).not_to_have_text(re.compile("New Chat|^$"))


def answer_again(page: Page, server: Server) -> None:
    """A second answer stands beside the first."""
    before = asked(server)
    page.locator(".regenerate-response-button").last.evaluate("button => button.click()")
    assert eventually(lambda: asked(server) > before, SECONDS)
    expect(page.get_by_text(re.compile(r"2\s*/\s*2"))).to_be_visible()


if __name__ == "__main__":
    sys.exit(main())
