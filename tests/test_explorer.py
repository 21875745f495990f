"""The report's page in a browser: opened from disk, looked at, followed, on all sizes and in both colours."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_explorer_data import catalogued
from test_report import LABELS, NASTY, data_of, placed, report_nested, report_plain_bags, run, structures

from minia.mining.lists.listdb import ListDB

playwright = pytest.importorskip("playwright.sync_api", reason="playwright opens the page in a browser")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

SCREENSHOTS = os.environ.get("MINIA_SCREENSHOTS")  # a folder that keeps what the tests looked at
VIEWS = (
    ("", "overview"), ("#structure=0", "structure"), ("#image=image 1.png", "image"), ("#words", "words"),
    ("#word=1", "word"), ("#help", "help"),
)  # fmt: skip

__all__ = ["catalogued", "placed", "run", "structures"]  # fixtures


class Seen:
    """A page and all that went wrong in it."""

    def __init__(self, page: Any, report: Path) -> None:
        self.page, self.report = page, report
        self.errors: list[str] = []
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("requestfailed", self._failed)
        page.on("request", self._outside)

    def _failed(self, request: Any) -> None:
        # A picture that was still on its way when the page was left is given up by the browser: no fault of the page.
        if request.failure != "net::ERR_ABORTED":
            self.errors.append(f"{request.url}: {request.failure}")

    def _outside(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.errors.append(f"asked for {request.url}")

    def open(self, fragment: str = "", view: str = "overview") -> None:
        self.page.goto("about:blank")
        self.page.goto((self.report / "index.html").as_uri() + fragment)
        self.at(view)

    def at(self, view: str) -> None:
        self.page.wait_for_selector(f'html[data-view="{view}"] main h1')


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(run: Any, structures: ListDB, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = run.report(structures, tmp_path_factory.mktemp("explorer") / "store")
    return made


@pytest.fixture
def seen(browser: Any, report: Path) -> Iterator[Seen]:
    context = browser.new_context(locale="en-GB", color_scheme="dark", viewport={"width": 1280, "height": 800})
    context.set_default_timeout(10_000)
    found = Seen(context.new_page(), report)
    yield found
    context.close()
    assert found.errors == []


def test_the_overview_says_what_was_run(seen: Seen) -> None:
    seen.open()
    assert seen.page.text_content("#statement").startswith("4 structures recur in 12 images: groups of 20 visual words")
    assert seen.page.locator("tbody tr").count() == 4
    assert seen.page.text_content("#count") == "4 of 4 structures"
    assert seen.page.evaluate("document.querySelector('canvas').width") > 300


def test_filters_leave_fewer_structures(seen: Seen) -> None:
    seen.open()
    images = data_of(seen.report, "overview")["structures"]["images"]
    seen.page.locator("#filter-images").fill("100")
    assert seen.page.locator("tbody tr").count() == images.count(max(images)) < 4
    seen.page.locator("#filter-images").fill("0")
    assert seen.page.locator("tbody tr").count() == 4
    seen.page.get_by_role("button", name="sort by words").click()
    counts = seen.page.locator("tbody tr td:nth-child(3)").all_text_contents()
    assert counts == sorted(counts, key=int, reverse=True)


def test_a_family_is_called_one(browser: Any, run: Any, structures: ListDB, tmp_path: Path) -> None:
    page = browser.new_page(locale="en-GB")
    seen = Seen(page, report_nested(run, structures, tmp_path / "store"))
    for number, family, terms in ((2, True, ["family"]), (0, False, ["family", "part"]), (3, False, ["part"])):
        seen.open(f"#structure={number}", "structure")
        assert ("A family: 2 structures" in page.text_content("main .head")) == family
        kin = page.locator("main .kin .term")
        assert [kin.nth(place).get_attribute("data-term") for place in range(kin.count())] == terms
    assert seen.errors == []
    page.close()


def test_keypoints_that_lie_over_each_other_are_dots(seen: Seen) -> None:
    seen.open()
    for size, elements in ((3, 2 * 25), (60, 25)):
        keypoints = [number for at in range(25) for number in (10 + at % 5 * 4, 10 + at // 5 * 4, size, 0)]
        entry = {"width": 100, "height": 100, "keypoints": keypoints}
        drawn = seen.page.evaluate("entry => minia.keypoints(entry, () => '#fff').children.length", entry)
        assert drawn == elements


def test_a_structure_is_opened_and_its_slider_moved(seen: Seen) -> None:
    seen.open()
    seen.page.locator('tbody a[href="#structure=0"]').click()
    seen.at("structure")
    value = data_of(seen.report, "structure-0000")
    shown = seen.page.locator("#gallery li:visible")
    assert shown.count() == len(value["gallery"]) == 4
    assert seen.page.locator("#gallery .outline circle").count() == 8  # each twice: its halo too
    seen.page.locator("#show-keypoints").check()
    keypoints = sum(len(entry["keypoints"]) // 4 for entry in value["gallery"])
    assert seen.page.locator("#gallery .keypoints circle").count() == 2 * keypoints > 0
    seen.page.locator("button.word").first.click()
    assert 0 < seen.page.locator("#gallery .keypoints circle").count() < 2 * keypoints
    seen.page.locator("#overlap").fill("1")
    best = sum(entry["overlap"] >= 1 for entry in value["gallery"])
    assert shown.count() == best
    assert seen.page.text_content("#sure") == f"1.00: {value['histogram'][-1]} image" + "s" * (
        value["histogram"][-1] != 1
    )


def test_the_list_is_saved_as_csv(seen: Seen) -> None:
    seen.open("#structure=2", "structure")
    with seen.page.expect_download() as download:
        seen.page.locator("#csv").click()
    lines = Path(download.value.path()).read_text().splitlines()
    value = data_of(seen.report, "structure-0002")["listed"]
    assert lines[0] == '"structure","image","overlap","label","x","y","size","angle"'
    assert len(lines) == 1 + len(value["names"])
    quoted = NASTY.replace('"', '""')
    assert any(f'"{quoted}"' in line for line in lines)


def test_an_image_is_zoomed_and_its_structures_toggled(seen: Seen) -> None:
    seen.open("#structure=2", "structure")
    seen.page.locator("#gallery a.frame").first.click()
    seen.at("image")
    outlines = seen.page.locator(".viewer .outline")
    count = seen.page.locator("#held li").count()
    assert outlines.count() == min(4, count) > 0
    listed = [int(text) for text in seen.page.locator("#held a").all_text_contents()]
    ranks = [data_of(seen.report, "overview")["structures"]["number"].index(number) for number in listed]
    assert len(ranks) > 1 and ranks[:4] == sorted(ranks)[:4]
    seen.page.get_by_role("button", name="none").click()
    assert outlines.count() == 0
    before = seen.page.evaluate("document.querySelector('.stage').getBoundingClientRect().width")
    seen.page.locator("#zoom-in").click()
    seen.page.wait_for_timeout(300)
    assert seen.page.evaluate("document.querySelector('.stage').getBoundingClientRect().width") > 1.3 * before
    assert seen.page.evaluate("document.querySelector('.viewer img').naturalWidth") > 0
    seen.page.locator("#held a").first.click()
    seen.at("structure")


def test_the_map_is_dragged_scrolled_and_clicked(seen: Seen) -> None:
    seen.open()
    box = seen.page.locator(".map canvas").bounding_box()
    shown = data_of(seen.report, "overview")["structures"]
    side = 0.96 * min(box["width"], box["height"])
    x = box["x"] + box["width"] / 2 + (shown["x"][0] - 0.5) * side
    y = box["y"] + box["height"] / 2 + (shown["y"][0] - 0.5) * side
    mouse = seen.page.mouse
    mouse.move(x, y)
    assert f"Structure {shown['number'][0]}" in seen.page.text_content("#tip")
    mouse.down()
    mouse.move(x + 40, y - 30, steps=3)
    mouse.up()
    mouse.wheel(0, -200)  # about the place beneath the mouse
    seen.at("overview")
    mouse.click(x + 40, y - 30)
    seen.at("structure")
    assert seen.page.url.endswith(f"#structure={shown['number'][0]}")


def test_an_image_is_dragged_and_moved_by_keys(seen: Seen) -> None:
    def place() -> tuple[float, float]:
        found = seen.page.evaluate("new DOMMatrix(document.querySelector('.stage').style.transform).toJSON()")
        return found["e"], found["f"]

    seen.open("#image=image 1.png", "image")
    seen.page.wait_for_function("document.querySelector('.stage').style.transform")
    box = seen.page.locator(".viewer").bounding_box()
    x, y = place()
    seen.page.mouse.move(box["x"] + 50, box["y"] + 150)
    seen.page.mouse.down()
    seen.page.mouse.move(box["x"] + 70, box["y"] + 155, steps=2)
    seen.page.mouse.up()
    assert place() == pytest.approx((x + 20, y + 5))
    seen.page.locator(".viewer").focus()
    seen.page.keyboard.press("ArrowLeft")
    assert place() == pytest.approx((x + 80, y + 5))
    seen.page.keyboard.press("0")
    assert place() == pytest.approx((x, y))


def test_hostile_names_are_text(seen: Seen) -> None:
    seen.open()
    seen.page.locator("#query").fill("5%.png")
    seen.page.get_by_role("link", name=NASTY).click()
    seen.at("image")
    assert seen.page.text_content("h1") == NASTY
    assert seen.page.locator("main b").count() == 0
    seen.page.reload()  # the link alone leads here
    seen.at("image")
    assert seen.page.text_content("h1") == NASTY
    assert any(label in seen.page.text_content("main") for label in LABELS)


def test_search_finds_structures_and_images_by_keyboard(seen: Seen) -> None:
    seen.open()
    seen.page.keyboard.press("/")
    seen.page.keyboard.type("3")
    seen.page.wait_for_selector("#found a")
    seen.page.keyboard.press("ArrowDown")
    seen.page.keyboard.press("Enter")
    seen.at("structure")
    assert seen.page.text_content("h1") == "Structure 3"
    seen.page.keyboard.press("p")
    seen.page.wait_for_function("document.querySelector('h1').textContent !== 'Structure 3'")
    assert seen.page.url.split("#")[1] != "structure=3"


def test_words_lead_to_structures(seen: Seen) -> None:
    seen.open("#words", "words")
    words = data_of(seen.report, "words")
    assert seen.page.locator(".words li").count() == len(words["numbers"]) == 20
    seen.page.locator(".words a").first.click()
    seen.at("word")
    assert seen.page.locator(".held li").count() == len(words["structures"][0])


@pytest.mark.parametrize("fragment", ["#structure=99", "#image=nothing.png", "#word=999", "#nonsense=%", "#label=%zz"])
def test_links_to_nothing_say_so(seen: Seen, fragment: str) -> None:
    seen.page.goto((seen.report / "index.html").as_uri() + fragment)
    seen.page.wait_for_selector("main h1")


def test_links_of_earlier_pages_work(seen: Seen) -> None:
    seen.open("#structure-2", "structure")
    assert seen.page.text_content("h1") == "Structure 2"


def test_every_number_has_a_definition_in_both_languages(seen: Seen) -> None:
    seen.open("#structure=0", "structure")
    seen.page.locator("dt .term").first.hover()
    assert "hold the structure" in seen.page.text_content("#tip")
    seen.page.locator("#language").click()
    seen.page.wait_for_function("document.documentElement.lang === 'es'")
    assert seen.page.text_content("h1") == "Estructura 0"
    texts = seen.page.evaluate("minia.texts")
    assert set(texts["en"]) == set(texts["es"])
    assert {key[6:] for key in texts["en"] if key.startswith("about.")} <= {
        key[5:] for key in texts["en"] if key.startswith("name.")
    }
    for view in ("overview", "structure", "image", "words", "word", "help"):
        seen.open(
            {"overview": "", "structure": "#structure=0", "image": "#image=image 1.png", "word": "#word=1"}.get(
                view, f"#{view}"
            ),
            view,
        )
        for term in seen.page.evaluate(
            "Array.from(document.querySelectorAll('[data-term]'), each => each.dataset.term)"
        ):
            assert f"about.{term}" in texts["es"]


def test_parts_are_outlined_with_their_direction(browser: Any, placed: Path) -> None:
    found = Seen(browser.new_page(), placed)
    found.open("#structure=0", "structure")
    assert "at its place, size and angle" in found.page.text_content("main")
    assert found.page.locator("#gallery .outline line").count() == 6  # with a halo each
    radius = found.page.locator("#gallery .outline circle").first.get_attribute("r")
    assert float(radius) == pytest.approx(30 / 2**0.5)
    assert found.page.text_content("#sure") == "0.00: 3 images"
    found.page.locator("#overlap").fill("0.6")
    assert found.page.text_content("#sure") == "0.60: 2 images"
    assert found.page.locator("#gallery li:visible").count() == 2
    with found.page.expect_download() as download:
        found.page.locator("#csv").click()
    assert Path(download.value.path()).read_text().splitlines()[1].endswith(",30,35,30,90")
    found.page.close()
    assert found.errors == []


@pytest.mark.parametrize("size", [(400, 800), (2560, 1440)])
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_pages_fit_their_width(browser: Any, report: Path, size: tuple[int, int], scheme: str) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": size[0], "height": size[1]})
    found = Seen(context.new_page(), report)
    for fragment, view in VIEWS:
        found.open(fragment, view)
        assert found.page.evaluate("document.documentElement.scrollWidth") <= size[0], view
        if SCREENSHOTS:
            found.page.screenshot(path=f"{SCREENSHOTS}/{view}_{size[0]}_{scheme}.png")
    ground = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(11, 13, 18)")
    context.close()
    assert found.errors == []


def test_plain_bags_of_words_can_be_browsed(browser: Any, tmp_path: Path) -> None:
    page = browser.new_page()
    found = Seen(page, report_plain_bags(tmp_path))
    for fragment, view in (("", "overview"), ("#structure=0", "structure"), ("#image=1", "image"), ("#words", "words")):
        found.open(fragment, view)
    assert page.locator(".words li").count() == 4
    page.close()
    assert found.errors == []


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("size", [(1280, 800), (400, 800)])
def test_pages_are_accessible(browser: Any, report: Path, scheme: str, size: tuple[int, int]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core checks accessibility")
    context = browser.new_context(color_scheme=scheme, viewport={"width": size[0], "height": size[1]})
    found = Seen(context.new_page(), report)
    for fragment, view in VIEWS:
        found.open(fragment, view)
        told = axe.Axe().run(found.page)
        assert told.violations_count == 0, f"{view}: {told.generate_report()}"
    found.page.evaluate("document.querySelector('main').appendChild(new Image()).src = 'images/image_000000.jpg'")
    assert axe.Axe().run(found.page).violations_count == 1  # so it does look
    context.close()
    assert found.errors == []


def test_places_on_the_sky_are_searched(browser: Any, catalogued: Path) -> None:
    found = Seen(browser.new_page(), catalogued)
    names = data_of(catalogued, "names-0000")["names"]
    for text in ("180.0701 -1.5", "12:00:16.82 -01:30:00"):
        found.open()
        found.page.locator("#query").fill(text)
        found.page.wait_for_selector("#found a")
        assert names[7] in found.page.text_content("#found a")
        assert found.page.locator("#found a").count() == 5
    found.page.locator("#found a").first.click()
    found.at("image")
    assert "note 7" in found.page.text_content("#values")
    assert found.page.locator("main i").count() == 0
    found.page.close()
    assert found.errors == []


def test_columns_filter_structures(browser: Any, catalogued: Path, tmp_path: Path) -> None:
    report = shutil.copytree(catalogued, tmp_path / "report")
    overview = data_of(report, "overview")
    names = [tuple(pair) for pair in overview["columns"]]
    magnitude, north = names.index(("magnitude", None)) + 1, names.index(("survey", "north")) + 1
    overview["structures"]["columns"] = [[magnitude, -north], [-magnitude, -north]]  # twelve images make nothing clear
    (report / "data" / "overview.js").write_text(f'minia.got("overview",{json.dumps(overview)});\n')
    found = Seen(browser.new_context(locale="en-GB").new_page(), report)
    found.open()
    texts = found.page.locator("#filter-column option").all_text_contents()
    assert sorted(texts) == sorted(["any", "high magnitude", "low magnitude", "survey ≠ north"])
    for value, count in ((magnitude, 1), (-magnitude, 1), (-north, 2)):
        found.page.locator("#filter-column").select_option(str(value))
        assert found.page.locator("tbody tr").count() == count
    found.page.context.close()
    assert found.errors == []


def test_names_are_kept_saved_and_opened(seen: Seen, browser: Any, tmp_path: Path) -> None:
    seen.open("#structure=1", "structure")
    seen.page.locator("#name").fill("a <b>ring</b>")
    seen.page.locator("#name").press("Tab")
    assert seen.page.text_content("h1") == "Structure 1: a <b>ring</b>"
    # Loaded anew by its own process: another one, which a blank page between would bring, is told a little later.
    seen.page.evaluate("location.hash = ''")
    seen.page.reload()
    seen.at("overview")
    assert "a <b>ring</b>" in seen.page.text_content("tbody")
    with seen.page.expect_download() as download:
        seen.page.locator("#save-names").click()
    saved = tmp_path / "names.json"
    saved.write_text(Path(download.value.path()).read_text())
    page = browser.new_context(locale="en-GB").new_page()
    other = Seen(page, seen.report)
    other.open()
    assert "ring" not in page.text_content("tbody")
    page.locator("#open-names").set_input_files(saved)
    page.wait_for_function("document.querySelector('tbody').textContent.includes('ring')")
    saved.write_text(saved.read_text().replace('"report": "', '"report": "x'))
    page.locator("#open-names").set_input_files(saved)
    page.wait_for_function("document.querySelector('#count').textContent.includes('no names')")
    page.context.close()
    assert other.errors == []
