"""The status page of the real service, in a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from town import Service, command, until

from syncsvc.sandbox.faults import Fault, Kind
from syncsvc.sandbox.world import World

DRIVER = shutil.which("chromedriver")
DESKTOP, PHONE = (1280, 1000), (390, 844)
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)

pytestmark = pytest.mark.skipif(
    DRIVER is None and "SYNCSVC_BROWSER" not in os.environ,
    reason="no Chromium with its chromedriver is installed; .ci/run installs both",
)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in (*QUIET, f"--user-data-dir={tmp_path / 'browser'}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def config(world: World) -> Path:
    return world.write_organization(every="200ms", settle_after="1s", listen="127.0.0.1:0")


def look(browser: Chrome, *, size: tuple[int, int], scheme: str) -> None:
    """Show the page anew in a window of this size, to somebody who likes this colour scheme."""
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.refresh()


def brightness(browser: Chrome, what: str) -> float:
    """Return how bright the page's ground (`backgroundColor`) or text (`color`) is, of 0 to 1."""
    script = f"return getComputedStyle(document.body).{what}.match(/[0-9.]+/g).slice(0, 3).map(Number)"
    return sum(browser.execute_script(script)) / 3 / 255


def test_the_page_shows_what_happens_in_light_and_dark_and_on_a_phone(
    world: World, config: Path, tmp_path: Path, browser: Chrome
) -> None:
    spoiled = next(world.hubspot_people())
    world.hubspot.update(spoiled.record_id, {"loyalty_points": "12.5"})
    with Service(config, tmp_path) as service:
        service.wait_for("cycle_finished", outcome="degraded")
        until("the page tells of it", lambda: "delivers, something waits" in service.get("/")[1])
        port = service.wait_for("service_started")[0]["port"]
        browser.get(f"http://127.0.0.1:{port}/")
        assert "1 organization, 1 needs a look" in browser.title
        text = browser.find_element(By.TAG_NAME, "body").text
        assert "delivers, something waits" in text
        assert spoiled.record_id in text
        assert "points:" in text
        assert not any(person.email in browser.page_source for person in world.people())
        assert browser.find_elements(By.CSS_SELECTOR, "svg rect")

        for size in (DESKTOP, PHONE):
            for scheme in ("light", "dark"):
                look(browser, size=size, scheme=scheme)
                ground, ink = brightness(browser, "backgroundColor"), brightness(browser, "color")
                bright, dark = (ground, ink) if scheme == "light" else (ink, ground)
                assert bright > 0.8
                assert dark < 0.4
                wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
                assert browser.execute_script(wide) == 0, "the page scrolls sideways"
                shown = browser.find_element(By.CSS_SELECTOR, "svg").size
                assert shown["width"] > 200
        browser.find_element(By.LINK_TEXT, "acme").click()
        assert browser.title == "acme · syncsvc"
        assert browser.current_url.endswith("/organizations/acme")
        assert browser.get_log("browser") == []

        assert command("-c", config, "pause", "crm", "--by", "Ann", "--reason", "audit").code == 0
        browser.refresh()
        text = browser.find_element(By.TAG_NAME, "body").text
        assert "crm was paused by Ann at 20" in text
        assert "audit → syncsvc resume -o acme crm" in text
        assert command("-c", config, "resume", "crm").code == 0

        world.wallet.faults.add(Fault(Kind.STATUS, "POST", "/v2/import", status=401, times=None))
        world.edit(3)

        def refused() -> bool:
            browser.refresh()
            return "401" in browser.find_element(By.TAG_NAME, "body").text

        until("the refusal on the page", refused)
        assert service.stop() == 0
