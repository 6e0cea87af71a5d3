"""What a person does with the server's page, in headless Chromium; imported by tests."""

import os
import shutil
import time

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


def until(page, condition, *, arg=None, timeout=15_000):
    """Waits for a condition in the page, without the `eval` that its content security policy forbids."""
    end = time.monotonic() + timeout / 1000
    while not page.evaluate(condition, arg):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(20)


def write(page, text):
    page.locator("#text").fill(text)
    until(page, "wanted => document.querySelector('#result').textContent.includes(wanted)", arg=text[-8:])
    until(page, "!document.querySelector('#result p.waiting')")


def marks(page, within="#result"):
    found = page.locator(f"{within} mark")
    return [(each.inner_text(), each.get_attribute("data-tag").split()[0]) for each in found.all()]


def place(page, words, within="#result"):
    """Where words stand on the screen: left, right, middle."""
    return page.evaluate(
        """([words, within]) => {
          const walker = document.createTreeWalker(document.querySelector(within), NodeFilter.SHOW_TEXT);
          for (let node = walker.nextNode(); node; node = walker.nextNode()) {
            const at = node.data.indexOf(words), range = document.createRange();
            if (at < 0) continue;
            range.setStart(node, at);
            range.setEnd(node, at + words.length);
            const box = range.getBoundingClientRect();
            return [box.left, box.right, (box.top + box.bottom) / 2];
          }
        }""",
        [words, within],
    )


def select(page, words):
    left, right, middle = place(page, words)
    page.mouse.move(left + 1, middle)
    page.mouse.down()
    page.mouse.move(right - 1, middle, steps=4)
    page.mouse.up()
    page.wait_for_selector("#toolbar:not([hidden])")


def save(page):
    page.get_by_role("button", name="Save correction").click()
    until(page, "document.querySelector('#saved').textContent.startsWith('saved in')")
    return page.locator("#saved").inner_text()
