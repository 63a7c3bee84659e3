"""`make pictures`: the page in Chromium and the dashboards, of a real server under mixed load.

Written to `deploy/pictures/`; binary files stay in the history for ever, so commit them rarely.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, expect, sync_playwright
from tqdm import tqdm  # type: ignore[import-untyped]

from deploy.monitoring.drawn import draw_all
from loadtests.servers import galton, running
from loadtests.soak.clients import Clients
from loadtests.soak.mix import Mix, learned
from tests.shared.browser import FLAGS
from tests.shared.debian import tool
from tests.shared.prometheus import scraping
from tests.shared.servers import REPO

FOLDER: Final = REPO / "deploy" / "pictures"
MODEL: Final = "galton-demo"
SIZES: Final = {"playground": (1280, 1500), "playground-phone": (390, 844)}


def main(argv: Sequence[str] | None = None) -> int:
    """Take them all."""
    parser = argparse.ArgumentParser(prog="make pictures", description=__doc__)
    parser.add_argument("--seconds", type=int, default=120, help="of load; %(default)s")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder; %(default)s")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as temporary,
        running(galton("serve", "--max-experts-per-token=8"), Path(temporary, "log")) as server,
        scraping(server.url, Path(temporary)) as prometheus,
        sync_playwright() as playwright,
    ):
        load = threading.Thread(target=_load, args=(server.url, args.seconds))
        load.start()
        browser = playwright.chromium.launch(executable_path=tool("chromium"), args=[*FLAGS])
        for name, (width, height) in SIZES.items():
            size = {"width": width, "height": height}
            _take(browser, server.url, size, args.out / f"{name}.png")
        browser.close()
        load.join()
        draw_all(prometheus, args.seconds, args.out)
    return 0


def _load(url: str, seconds: int) -> None:
    clients = Clients(url, Mix(MODEL, *learned(url), seed=0), in_flight=4)
    with tqdm(unit=" requests", file=sys.stderr, disable=None) as bar:
        asyncio.run(clients.run(seconds, bar.update))


def _take(browser: Browser, url: str, size: Any, path: Path) -> None:
    """Of the page, after an answer, with a token's experts shown."""
    page = browser.new_page(viewport=size, color_scheme="light")
    page.goto(f"{url}/playground")
    expect(page.locator("#policy-b select[data-policy]")).to_have_value("mode:sample")
    page.fill("#policy-b [data-key=temperature]", "1.5")
    page.click("#send")
    expect(page.locator("#said")).to_have_text("answered", timeout=60_000)
    expect(page.locator("#load-said")).to_contain_text("Busiest", timeout=60_000)
    page.hover("#answer-b .token >> nth=5")
    page.screenshot(path=path, full_page=True)
    page.close()
    print(path)


if __name__ == "__main__":
    sys.exit(main())
