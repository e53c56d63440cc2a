"""The page in a real browser: it comes in by the printed address, stays fresh, and is used without a mouse."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from firstread.records import Flag
from firstread.up.page_key import make_key
from tests.builders.browser import LIMIT_S, headless
from tests.builders.page import RunningPage
from tests.builders.scored_studies import scored_study
from tests.builders.timing import until
from tests.integration.firstread_web.conftest import Studies

CONTRAST = """
const light = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number).map((v) => v / 255)
  .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const back = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
  if (!/, 0\\)$|transparent/.test(c)) return c; } return "rgb(255, 255, 255)"; };
return [...document.querySelectorAll("main *, header *, footer, .notice *")]
  .filter((e) => e.tagName !== "OPTION" && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()))
  .map((e) => { const a = light(getComputedStyle(e).color), b = light(back(e));
    return [e.outerHTML.slice(0, 60), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]; })
  .filter(([, ratio]) => ratio < 4.5);
"""
"""Texts with a contrast below 4.5 (WCAG 2.2, 1.4.3)."""


@pytest.fixture
def browser() -> Iterator[Chrome]:
    with headless() as driver:
        yield driver


def heading(browser: Chrome) -> str:
    return next((one.text for one in browser.find_elements(By.TAG_NAME, "h1")), "")


@pytest.mark.timeout(300)
def test_a_reader_works_with_the_keyboard_alone(browser: Chrome, page: RunningPage, studies: Studies) -> None:
    settings, db = page.settings, page.db
    browser.get(f"{page.url}/#key={make_key(settings)}")
    until(lambda: heading(browser) == "Studies", LIMIT_S, what="the list")
    assert "key=" not in browser.current_url
    assert browser.execute_script(CONTRAST) == []
    late = scored_study(db, settings, pipeline="chest_xray", n=1, probability=0.3, accession="LATE<b>1</b>")
    until(lambda: "LATE<b>1</b>" in browser.page_source.replace("&lt;", "<").replace("&gt;", ">"), LIMIT_S, what="live")
    assert any("LATE<b>1</b>" in cell.text for cell in browser.find_elements(By.TAG_NAME, "td")), "as text"
    browser.find_element(By.CSS_SELECTOR, f'a[href="/study/{studies.head.study_id}"]').send_keys(Keys.ENTER)
    until(lambda: heading(browser) == f"Study {studies.head.study_id}", LIMIT_S, what="the study")
    assert browser.execute_script(CONTRAST) == []
    assert browser.execute_script("return [...document.images].every((i) => i.complete && i.naturalWidth > 0)")
    button = browser.find_element(By.CSS_SELECTOR, "button.main")
    for _ in range(30):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        if browser.switch_to.active_element == button:
            break
    width = browser.execute_script("return getComputedStyle(document.activeElement).outlineWidth")
    assert browser.switch_to.active_element == button and width == "3px", "the focus is seen"
    button.send_keys(Keys.ENTER)
    until(lambda: "Acknowledged by" in browser.page_source, LIMIT_S, what="the acknowledgement")
    with db.read() as session:
        flag = session.get_one(Flag, studies.head.flag_id)
        assert flag.acknowledged_at is not None
    assert late.flag_id is None
    complaints = [line for line in browser.get_log("browser") if "Content Security" in line["message"]]
    assert complaints == []
