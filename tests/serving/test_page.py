"""The page in a real browser over a real server: what a person types, corrects, saves, reviews and promotes."""

import json
import re
import shutil
from types import SimpleNamespace

import pytest
import served
import toy
from browsing import CHROMIUM, marks, place, save, select, until, write
from served import ask, serving

from app.config import ModelConfig, PredictConfig
from app.export.saved_model import save_as_saved_model
from app.tasks.network import build_encoder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed (set CHROMIUM to a browser)"),
]
MULTI_LABEL = {"multi_label": True}
INTENTS = tuple(f"intent_{number}" for number in range(77))
TEXT = "Ada Smith met 🎉 Bob in Rome .\n\nthe old house was in Lima ."


@pytest.fixture(scope="module")
def site(served_run, vocabulary, tmp_path_factory):
    """A server of a tagger in two versions, a classifier, one of 77 labels of which a text may have several, and one of
    pairs of texts.
    """
    folder = tmp_path_factory.mktemp("site")
    ner = folder / "ner"
    shutil.copytree(served_run, ner, ignore=shutil.ignore_patterns("tflite"))
    other = toy.make_tagger(vocabulary, model=ModelConfig(head="softmax", head_dropout=0.0), seed=9)
    save_as_saved_model(other, toy.make_encoder(other), PredictConfig(), ner / "export" / "saved_model")
    (ner / "export" / "labels.json").write_text(json.dumps({"stable": 1, "canary": 2, "history": []}))
    one, several = toy.make_classifier(vocabulary), toy.make_classifier(vocabulary, labels=INTENTS, facts=MULTI_LABEL)
    pairs = toy.make_classifier(vocabulary, facts={"pairs": True})
    classify, topics, replies = (
        served.make_run(folder / name, model, build_encoder(model, served.CONFIG.data), light=True)
        for name, model in (("classify", one), ("topics", several), ("replies", pairs))
    )
    names = ("ner", "classify", "topics", "replies")
    with serving(ner, classify, topics, replies, names=names, runtime="auto", reload_seconds=0) as url:
        yield SimpleNamespace(url=url, ner=ner)


@pytest.fixture
def open_page(site, browser):
    """Opens the page; at the end nothing may have gone wrong in it, and nothing may have been asked of another host."""
    contexts, wrong, asked = [], [], set()

    def open_it(url=None, wait=".spans mark", **options):
        contexts.append(browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options}))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
        page.on("request", lambda request: asked.add(request.url))
        page.set_default_timeout(15_000)
        page.goto(url or site.url)
        page.wait_for_selector(wait)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert not wrong
    assert {url for url in asked if not url.startswith(("http://127.0.0.1:", "data:"))} == set()


@pytest.fixture
def page(open_page):
    return open_page()


def corrections(site, model="ner"):
    status, found = ask(site.url, f"/feedback?model={model}")
    assert status == 200
    return found["corrections"]


def test_entities_appear_as_one_types_where_the_server_says(site, page):
    write(page, TEXT)
    answers = ask(site.url, "/entities", {"texts": TEXT.split("\n\n"), "model": "ner"})[1]["answers"]
    expected = [(each["text"], each["label"]) for row in answers for each in row["entities"]]
    assert marks(page) == expected and len(expected) > 2
    first = answers[0]["entities"][0]
    tag = page.locator("#result mark").first.get_attribute("data-tag")
    assert tag == f"{first['label']} {first['score']:.2f}"
    page.locator("#text").press_sequentially(" Oslo")
    until(page, "document.querySelector('#result p:last-child').textContent.endsWith('Oslo')")
    assert page.locator("#legend .type").all_inner_texts() == ["LOC", "PER"]


def test_only_what_changed_of_a_long_text_is_answered_and_drawn(page):
    asked = []
    page.on("request", lambda request: asked.append(request.post_data_json) if "entities" in request.url else None)
    paragraphs = [f"{TEXT.splitlines()[0]} {number} went to the house ." * 9 for number in range(200)]
    page.locator("#text").fill("\n\n".join(paragraphs))
    until(
        page,
        "document.querySelectorAll('#result p').length > 199 && !document.querySelector('#result p.waiting')",
        timeout=60_000,
    )
    assert sum(map(len, paragraphs)) > 70_000
    page.evaluate("window.before = [...document.querySelectorAll('#result p')].slice(0, -1)")
    asked.clear()
    page.locator("#text").press("Control+End")
    page.locator("#text").press_sequentially(" Bob")
    until(page, "document.querySelector('#result p:last-child').textContent.endsWith('Bob')")
    until(page, "!document.querySelector('#result p.waiting')")
    assert [len(body["texts"]) for body in asked] in ([1], [1, 1], [1, 1, 1])
    same = "before.every((node, number) => node === document.querySelectorAll('#result p')[number])"
    assert page.evaluate(same)
    milliseconds = "() => { const began = performance.now(); changeText(); return performance.now() - began }"
    assert page.evaluate(milliseconds) < 200


def test_entities_are_corrected_by_mouse_alone(site, page):
    text = "the old house met Ada Smith 🎉 and went to the Lima City house"
    write(page, text)
    assert marks(page)
    while marks(page):  # whatever the model found
        page.locator("#result mark").first.click()
        page.get_by_role("button", name="Delete").click()
    select(page, "da Smi")  # whole words are taken
    page.locator("#toolbar").get_by_role("button", name="LOC").click()
    page.locator("#result mark").click()
    page.locator("#toolbar").get_by_role("button", name="PER").click()
    select(page, "Lima")
    page.locator("#toolbar").get_by_role("button", name="LOC").click()
    mark = page.locator("#result mark", has_text="Lima")
    mark.hover()
    grip = mark.locator(".handle.end").bounding_box()
    page.mouse.move(grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2)
    page.mouse.down()
    left, right, middle = place(page, "City")
    page.mouse.move(left + 5, middle, steps=3)
    page.mouse.move(right - 2, middle, steps=3)
    page.mouse.up()
    assert marks(page) == [("Ada Smith", "PER"), ("Lima City", "LOC")]
    select(page, "house")
    page.locator("#toolbar").get_by_role("button", name="PER").click()
    page.get_by_role("button", name="Undo").click()
    assert marks(page) == [("Ada Smith", "PER"), ("Lima City", "LOC")]
    page.get_by_label("Your name").fill("Ada")
    said = save(page)
    assert re.fullmatch(rf"saved in {re.escape(str(site.ner))}/feedback\.sqlite, \d+ corrections? so far", said)
    stored = corrections(site)[0]
    assert (stored["text"], stored["verdict"], stored["author"]) == (text, "fixed", "Ada")
    assert stored["source"] == "page"
    slices = [(text[each["start"] : each["end"]], each["label"]) for each in stored["answer"]["entities"]]
    assert slices == [("Ada Smith", "PER"), ("Lima City", "LOC")]
    assert stored["prediction"]["entities"] and stored["version"] == 1 and len(stored["digest"]) == 64


def test_entities_are_corrected_by_keys_alone(site, page):
    write(page, "we met there")
    page.locator("#result [role=application]").focus()
    before = marks(page)
    page.keyboard.press("Control+a")  # whatever it does in a page, it corrects nothing
    page.keyboard.press("Escape")
    for _ in before:
        page.keyboard.press("n")
        page.keyboard.press("Delete")
        page.keyboard.press("Escape")
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowRight", "2"):  # "met there" is PER
        page.keyboard.press(key)
    assert marks(page) == [("met there", "PER")]
    for key in ("Shift+ArrowLeft", "Shift+ArrowUp"):  # "we met"
        page.keyboard.press(key)
    assert marks(page) == [("we met", "PER")]
    assert "we met" in page.locator("#live").inner_text()
    page.keyboard.press("1")
    page.keyboard.press("Control+z")
    page.keyboard.press("p")
    for key in ("Enter", "Enter"):  # into the tools, and the first of them
        page.keyboard.press(key)
    assert marks(page) == [("we met", "LOC")]
    for key in ("Escape", "Tab", "Enter"):
        page.keyboard.press(key)
    until(page, "document.querySelector('#saved').textContent.startsWith('saved in')")
    stored = corrections(site)[0]
    assert stored["text"] == "we met there"
    assert stored["answer"] == {"entities": [{"start": 0, "end": 6, "label": "LOC"}]}


def test_a_correction_whose_answer_was_lost_is_stored_once(site, page):
    write(page, "Bob saw the house")
    sent = []

    def lose(route):
        sent.append(route.request.post_data_json["corrections"][0]["id"])
        if len(sent) == 1:
            assert ask(site.url, "/feedback", route.request.post_data_json)[0] == 201  # it arrives
            route.abort()  # but the page does not hear of it
        else:
            route.continue_()

    page.route("**/feedback", lose)
    page.get_by_role("button", name="All right as shown").click()
    until(page, "document.querySelector('#saved').textContent.startsWith('Not saved')")
    page.get_by_role("button", name="All right as shown").click()
    until(page, "document.querySelector('#saved').textContent.startsWith('saved in')")
    assert sent[0] == sent[1]
    stored = [each for each in corrections(site) if each["text"] == "Bob saw the house"]
    assert [each["verdict"] for each in stored] == ["accepted"]


def test_two_versions_stand_side_by_side(page):
    write(page, TEXT)
    page.get_by_label("Compare with").select_option(label="ner 2 · canary")
    until(page, "document.querySelectorAll('#other-result p:not(.waiting)').length === 2")
    assert marks(page) != marks(page, "#other-result")
    assert page.locator("#result mark.differs, #other-result mark.differs").count() > 0
    assert page.locator("#other-title").inner_text() == "ner 2 · canary"


def test_the_right_label_is_found_among_many_and_there_may_be_several(site, page):
    page.locator("#model").select_option("topics")
    page.wait_for_selector("#result fieldset label")
    assert page.locator("#result fieldset label").count() < len(INTENTS)
    chosen = [each.input_value() for each in page.locator("#result input:checked").all()]
    for label in chosen:
        page.locator(f"#result input[value={label}]").uncheck()
    for number in (70, 3):
        page.get_by_label("Search labels").fill(f"intent {number}")
        page.get_by_label("Search labels").press("Enter")
    save(page)
    stored = corrections(site, "topics")[0]
    assert stored["answer"] == {"labels": ["intent_3", "intent_70"]}
    assert set(stored["prediction"]["scores"]) == set(INTENTS)
    page.locator("#model").select_option("classify")
    until(page, "document.querySelectorAll('#result fieldset input').length === 4")
    predicted = page.locator("#result input:checked").input_value()
    other = next(label for label in toy.TEXT_LABELS if label != predicted)
    page.get_by_role("radio", name=other).check()
    save(page)
    stored = corrections(site, "classify")[0]
    assert stored["answer"] == {"label": other} and stored["prediction"]["label"] == predicted


def test_a_pair_of_texts_has_two_fields(site, page):
    assert page.locator("#second").is_hidden()
    page.locator("#model").select_option("replies")
    page.locator("#text").fill("Ada met Bob .\tBob saw Rome .")  # a line of a file
    assert (page.locator("#text").input_value(), page.locator("#second").input_value()) == (
        "Ada met Bob .", "Bob saw Rome .",
    )  # fmt: skip
    page.get_by_label("Second text").fill("the old\thouse")
    until(page, "tryEditor.text === 'Ada met Bob .\\tthe old house'")
    row = ask(site.url, "/classify", {"texts": ["Ada met Bob .\tthe old house"], "model": "replies"})[1]["answers"][0]
    assert page.locator("#result input:checked").input_value() == row["label"]
    other = next(label for label in toy.TEXT_LABELS if label != row["label"])
    page.get_by_role("radio", name=other).check()
    save(page)
    stored = corrections(site, "replies")[0]
    assert (stored["text"], stored["answer"]) == ("Ada met Bob .\tthe old house", {"label": other})
    page.locator("#model").select_option("classify")
    assert page.locator("#second").is_hidden()


def test_the_queue_is_worked_off_by_keys(site, page):
    texts = [f"{name} saw the old house {number} ." for number, name in enumerate(("Ada", "Bob", "Cleo", "Dan"))]
    page.get_by_role("tab", name="Review").click()
    table = "text,id\n" + "".join(f'"{text}",1\n' for text in texts)
    page.locator("#file").set_input_files({"name": "more.csv", "mimeType": "text/csv", "buffer": table.encode()})
    page.get_by_role("button", name="Add", exact=True).click()
    until(page, "document.querySelector('#added').textContent.startsWith('4 texts added')")
    page.wait_for_selector("#item:not([hidden])")
    order = [each["text"] for each in ask(site.url, "/queue?model=ner")[1]["items"]]
    assert sorted(order) == texts
    shown = []
    for keys in ("a", "s", "f1a"):
        shown.append(page.locator("#item-result").text_content().strip())
        for key in keys:
            page.keyboard.press(key)
        until(page, "queue.sending.size === 0")
        assert page.locator("#item-saved").inner_text().startswith("saved in")
        until(page, "gone => !document.querySelector('#item-result').textContent.includes(gone)", arg=shown[-1])
    until(page, "document.querySelector('#progress-text').textContent === '3 done, 1 left'")
    assert shown == order[:3]
    verdicts = {each["text"]: each["verdict"] for each in corrections(site) if each["text"] in texts}
    assert [verdicts[text] for text in shown] == ["accepted", "skipped", "fixed"]
    page.locator("#by").select_option("disagreement")
    page.wait_for_selector("#item-other mark, #queue-empty:not([hidden])")


def test_only_what_is_known_is_said_of_texts_that_were_flagged_and_skipped(site, page):
    entity = {"start": 0, "end": 4, "label": "PER"}
    flagged = {"text": "Olga left the old house .", "prediction": {"entities": [entity]}}  # without a score
    skipped = {"text": "the old house was empty .", "prediction": {"entities": []}}
    sent = [
        {**each, "verdict": verdict, "model": "ner", "version": 1, "answer": {}}
        for each, verdict in ((flagged, "flagged"), (skipped, "skipped"))
    ]
    assert ask(site.url, "/feedback", {"corrections": sent})[0] == 201
    unscored = {"reason": "flagged", "uncertainty": None, "answer": flagged["prediction"]}
    assert page.evaluate("each => reasonOf(each)", unscored) == "Somebody flagged this text."
    nothing = {"reason": "added", "uncertainty": None, "answer": {"entities": []}}
    assert page.evaluate("each => reasonOf(each)", nothing) == "The model found nothing here."
    page.get_by_role("tab", name="Versions").click()
    page.wait_for_selector("#recent li")
    lines = page.locator("#recent li").all_inner_texts()
    for verdict in ("flagged", "skipped"):
        assert not any(f"{verdict} · nothing" in line for line in lines) and any(verdict in line for line in lines)
    until(page, "/^[0-9,]+ entr(y|ies) in /.test(document.querySelector('#stored-in').textContent)")
    page.get_by_role("tab", name="Review").click()
    texts = ["Nina saw it .", "Nina saw it ."]
    page.locator("#more").fill("\n".join(texts))
    page.get_by_role("button", name="Add", exact=True).click()
    until(page, "document.querySelector('#added').textContent === '1 text added, 1 was there already'")


def test_judgements_that_could_not_be_saved_wait_for_one_button(site, page):
    texts = [f"the old house {number} was in Oslo ." for number in range(2)]
    assert ask(site.url, "/queue", {"texts": texts, "model": "ner"})[0] == 201
    page.route("**/feedback", lambda route: route.abort())
    page.get_by_role("tab", name="Review").click()
    page.wait_for_selector("#item:not([hidden])")
    page.keyboard.press("a")
    page.keyboard.press("a")
    until(page, "queue.sending.size === 2 && document.querySelectorAll('#item-saved button').length === 1")
    page.unroute("**/feedback")
    page.get_by_role("button", name="Try again").click()
    until(page, "queue.sending.size === 0")
    assert page.locator("#item-saved").inner_text().startswith("saved in")
    judged = [each["verdict"] for each in corrections(site)[:2]]
    assert judged == ["accepted", "accepted"]


def test_the_canary_is_promoted_and_rolled_back_with_the_numbers_in_sight(site, page):
    page.get_by_role("tab", name="Versions").click()
    page.wait_for_selector("#version-table tbody tr")
    assert "stable" in page.locator("#version-table tr", has_text="stable").inner_text()
    page.get_by_role("button", name="Make the canary (2) stable").click()
    assert "People agreed with version 2: not judged yet" in page.locator("#sure-text").inner_text()
    page.get_by_role("button", name="Make it stable").click()
    until(page, "document.querySelector('#versions-note').textContent === 'Version 2 is stable now.'", timeout=90_000)
    assert ask(site.url, "/entities", {"texts": ["Ada"]})[1]["version"] == 2
    page.get_by_role("button", name="Roll back", exact=True).click()
    page.locator("#sure-ok").click()
    until(page, "document.querySelector('#versions-note').textContent === 'Rolled back.'", timeout=90_000)
    assert ask(site.url, "/entities", {"texts": ["Ada"]})[1]["version"] == 1
    row = page.locator("#version-table tr", has=page.get_by_role("button", name="Try out as canary"))
    row.get_by_role("button").click()
    page.locator("#sure-ok").click()
    until(page, "document.querySelector('#versions-note').textContent === 'Version 2 is canary now.'", timeout=90_000)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 360)])
def test_no_barriers_in_light_and_dark_wide_and_narrow(open_page, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page(color_scheme=scheme, viewport={"width": width, "height": 740})
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(14, 19, 26)"
    assert dark == (scheme == "dark")

    def check():
        found = axe.run(page).response["violations"]
        assert [(each["id"], each["nodes"][0]["html"]) for each in found] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    page.locator("#result mark").first.click()
    page.wait_for_selector("#toolbar:not([hidden])")
    check()
    page.keyboard.press("Escape")
    for tab in ("Review", "Versions"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(200)
        check()
    page.get_by_role("tab", name="Try").click()
    page.locator("#model").select_option("topics")
    page.wait_for_selector("#result fieldset label")
    check()


def test_the_key_is_asked_for_and_kept_for_the_tab(open_page, served_run):
    with serving(served_run, key="secret", runtime="tflite") as url:
        page = open_page(url, wait="dialog[open]")
        page.locator("#key").fill("secret")
        page.get_by_role("button", name="Use it").click()
        page.wait_for_selector("#result mark")
        assert page.evaluate("[sessionStorage.getItem('api-key'), localStorage.length]") == ["secret", 0]
        page.reload()
        page.wait_for_selector("#result mark")
        page.evaluate("sessionStorage.setItem('api-key', 'old')")
        page.locator("#text").fill("Bob saw Rome .")
        page.wait_for_selector("dialog[open]")
        page.locator("#key").fill("secret")
        page.keyboard.press("Enter")
        until(page, "document.querySelector('#result').textContent.includes('Rome')")


def test_a_page_of_another_site_cannot_write_into_the_store(site):
    body = {"corrections": [{"text": "Bob", "answer": {"entities": []}}]}
    for headers in ({"Origin": "http://elsewhere.example"}, {"Sec_Fetch_Site": "cross-site"}):
        status, answer = ask(site.url, "/feedback", body, **headers)
        assert status == 403 and "another site" in answer["error"]

