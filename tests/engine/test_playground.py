"""The page in headless Chromium: what a person sees of it, and may do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright import sync_api

from loadtests.servers import galton
from server.playground import FILES, HEADERS, PATH
from tests.shared.browser import FLAGS
from tests.shared.debian import tool
from tests.shared.servers import HTTP, Server, running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=tool("chromium"), args=[*FLAGS])
        yield opened
        opened.close()


@pytest.fixture
def page(server: Server, browser: Any) -> Iterator[Any]:
    """The page, opened as a person does, without an error in its console or a request elsewhere."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("request", lambda r: None if r.url.startswith(server.url) else wrong.append(r.url))
    opened.goto(server.url)
    sync_api.expect(opened.locator("#policy-b select[data-policy]")).to_have_value("mode:sample")
    yield opened
    context.close()
    assert [w for w in wrong if "400" not in w and "401" not in w] == []


def ask(page: Any) -> None:
    page.click("#send")
    sync_api.expect(page.locator("#said")).to_have_text("answered", timeout=60_000)


def choose(page: Any, side: str, policy: str) -> None:
    page.select_option(f"#policy-{side} select[data-policy]", policy)


def test_page_is_served_with_a_strict_policy(server: Server) -> None:
    assert HTTP.get(server.url + "/").headers["location"] == "playground"
    for path in (PATH, *(f"{PATH}/{name}" for name in FILES)):
        answer = HTTP.get(server.url + path)
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]
        assert "http" not in answer.text.replace("http://www.w3.org/2000/svg", "")
    assert HTTP.get(f"{server.url}{PATH}/..%2fapp.py").status_code == 404


def test_two_policies_answer_side_by_side(page: Any) -> None:
    page.fill("#prompt", "What is 8 plus 6?")
    ask(page)
    for side in "ab":
        assert "14" in page.inner_text(f"#answer-{side} .tokens")
        assert "tokens" in page.inner_text(f"#answer-{side} .meta")
    # The model's own routing is as its own top-k; noise is not.
    heat = "getComputedStyle(document.querySelector('{} .token')).getPropertyValue('--heat')"
    assert float(page.evaluate(heat.format("#answer-a"))) == 0
    heats = page.evaluate(
        "[...document.querySelectorAll('#answer-b .token')]"
        ".map((t) => Number(t.style.getPropertyValue('--heat')))"
    )
    assert max(heats) > 0


def test_a_tokens_experts_are_shown_to_mouse_and_keyboard(page: Any) -> None:
    for _ in range(5):
        ask(page)
        if page.locator("#answer-b .token").count() > 1:  # a busy server sends tokens together
            break
    page.hover("#answer-b .token >> nth=1")
    assert page.locator("#token tr").count() == 8
    assert "nats" in page.inner_text("#token caption")
    page.focus("#answer-b .token >> nth=0")
    first = page.inner_text("#token caption")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#token caption") != first


def test_stop_ends_an_answer(page: Any, server: Server) -> None:
    page.fill("#max_tokens", "1900")
    page.fill("#prompt", "Count from 1 to 1000.")
    page.select_option("#kind", "completion")
    with server.engine_held():
        page.click("#send")
        sync_api.expect(page.locator("#stop")).to_be_enabled()
        page.click("#stop")
        sync_api.expect(page.locator("#said")).to_have_text("stopped")
    assert not page.inner_text("#problem")


def test_an_error_is_told(page: Any) -> None:
    page.fill("#max_tokens", "4096")
    page.click("#send")
    sync_api.expect(page.locator("#problem")).to_contain_text("max_tokens")


def test_controls_are_the_modes_own(page: Any) -> None:
    choose(page, "b", "mode:top_p")
    keys = page.eval_on_selector_all("#policy-b [data-key]", "all => all.map(e => e.dataset.key)")
    assert {"top_p", "max_experts"} <= set(keys)
    assert page.get_attribute("#policy-b [data-key=max_experts]", "max") == "8"
    choose(page, "b", "preset:two")
    assert page.locator("#policy-b [data-key]").count() == 0
    ask(page)
    assert '"top_k":2' in page.inner_text("#answer-b .meta").replace(" ", "")


def test_a_link_holds_the_settings(page: Any, server: Server) -> None:
    page.fill("#prompt", "Where is the book?")
    choose(page, "a", "mode:uniform")
    page.fill("#policy-a [data-key=top_k]", "3")
    page.click("#share")
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    sync_api.expect(page.locator("#policy-a [data-key=top_k]")).to_have_value("3")
    assert page.input_value("#prompt") == "Where is the book?"


def test_the_request_can_be_taken_along(page: Any, server: Server) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    choose(page, "a", "mode:sample")
    page.click("#curl")
    sync_api.expect(page.locator("#said")).to_contain_text("copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    body = json.loads(copied.partition(" -d '")[2].removesuffix("'"))
    answer = server.post("/v1/chat/completions", body)
    assert answer.status_code == 200
    assert answer.json()["routing"]["policy"]["mode"] == "sample"
    page.click("#python")
    sync_api.expect(page.locator("#said")).to_contain_text("Python copied")
    compile(page.evaluate("navigator.clipboard.readText()"), "copied", "exec")


def test_the_matrix_follows_the_server(page: Any, server: Server) -> None:
    def dead() -> str:
        return str(page.inner_text("#load-said"))

    server.tokens([20, 21, 22], {"mode": "top_k", "top_k": 1, "scope": "all"})
    sync_api.expect(page.locator("#load-said")).to_contain_text("Busiest", timeout=30_000)
    assert "8 layers down, 16 experts across" in dead()


def test_a_key_is_asked_for(browser: Any, tmp_path: Path) -> None:
    with running(galton("serve", "--api-key=secret"), tmp_path / "log") as server:
        page = browser.new_page()
        page.goto(f"{server.url}/playground")
        page.fill("#key", "wrong")
        page.keyboard.press("Tab")
        sync_api.expect(page.locator("#key-row")).to_be_visible()
        page.fill("#key", "secret")
        page.keyboard.press("Tab")
        sync_api.expect(page.locator("#key-row")).to_be_hidden()
        ask(page)
        page.close()
        assert "secret" not in server.log.read_text(errors="replace")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 375])
def test_nobody_is_kept_out(page: Any, scheme: str, width: int) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    ask(page)
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "best-practice"]})
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
