"""The page in a real browser, with a real server."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image as Pillow

Encoder = Callable[..., bytes]
SIZE = (640, 480)
PATIENCE = 120_000  # milliseconds after which a wait fails
READY = "#threshold[aria-valuetext]"  # set once the page listens, so that no file is picked before


@pytest.fixture(scope="module")
def photo(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "street.png"
    path.write_bytes(encoder(1, "PNG", width=SIZE[0], height=SIZE[1]))
    return path


@pytest.fixture(scope="module")
def answer(server: Any, photo: Path) -> list[dict[str, Any]]:
    """The objects that the server finds in it, at the lowest score that the page requests."""
    response = httpx.post(f"{server.address}/detect?score=0.05", content=photo.read_bytes(), timeout=PATIENCE)
    objects: list[dict[str, Any]] = response.json()["objects"]
    return objects


@pytest.fixture(params=[(1280, 800), (390, 844)], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, browser: Any, server: Any) -> Iterator[Any]:
    """The opened page; at the end the console must have no error."""
    width, height = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme="light")
    context.set_default_timeout(PATIENCE)
    opened = context.new_page()
    complaints: list[str] = []
    asked: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda sent: asked.append(sent.url))
    opened.goto(server.address)
    opened.wait_for_selector(READY, state="attached")
    opened.asked = asked
    opened.complaints = complaints
    yield opened
    foreign = [url for url in asked if not url.startswith((server.address, "blob:"))]
    context.close()
    assert foreign == []
    assert [text for text in complaints if "status of 4" not in text] == []  # refusals are shown, see below


def look_at(page: Any, file: Path) -> None:
    page.set_input_files("#pick", file)
    page.wait_for_selector("#app[data-state=done]")


def drop(page: Any, file: Path) -> None:
    """Drop a file as the operating system would."""
    content = base64.b64encode(file.read_bytes()).decode()
    page.evaluate(
        """([name, content]) => {
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name));
            const more = { dataTransfer: transfer, bubbles: true, cancelable: true };
            for (const kind of ["dragenter", "dragover", "drop"]) {
                document.querySelector("#drop").dispatchEvent(new DragEvent(kind, more));
            }
        }""",
        [file.name, content],
    )


def slide_to(page: Any, percent: int) -> None:
    page.locator("#threshold").fill(str(percent))


def visible(page: Any, selector: str) -> int:
    """How many of these elements are visible."""
    script = "(all) => [...document.querySelectorAll(all)].filter((one) => one.checkVisibility()).length"
    return int(page.evaluate(script, selector))


def fits(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def test_drop_an_image_and_see_the_boxes(page: Any, photo: Path, answer: list[dict[str, Any]]) -> None:
    assert fits(page)
    drop(page, photo)
    page.wait_for_selector("#app[data-state=done]")
    assert fits(page)
    shown = [found for found in answer if found["score"] > 0.5]
    assert page.inner_text("#count") == f"{len(shown)} objects"
    assert visible(page, ".box") == len(shown)
    assert visible(page, "#list .object") == len(shown)
    image = page.locator("#image").bounding_box()
    scale = image["width"] / SIZE[0]
    assert abs(image["height"] - scale * SIZE[1]) <= 1
    for place in (0, len(shown) - 1):
        box = page.locator(f".box[data-index='{place}']").bounding_box()
        x1, y1, x2, y2 = shown[place]["box"]
        drawn = [box["x"] - image["x"], box["y"] - image["y"], box["width"], box["height"]]
        np.testing.assert_allclose(drawn, [scale * v for v in (x1, y1, x2 - x1, y2 - y1)], rtol=0, atol=1.5)
        text = page.locator(f".box[data-index='{place}'] .name").text_content()
        assert text == f"{shown[place]['name']} {round(100 * shown[place]['score'])} %"


@pytest.mark.parametrize("page", [(320, 568)], ids=["small phone"], indirect=True)
def test_the_smallest_phone_shows_all_of_its_width(page: Any, photo: Path) -> None:
    look_at(page, photo)
    assert fits(page)


def test_slider_filters_without_a_request(page: Any, photo: Path, answer: list[dict[str, Any]]) -> None:
    look_at(page, photo)
    before = len(page.asked)
    counts = []
    for percent in (5, 55, 65, 100):
        slide_to(page, percent)
        counts.append(visible(page, ".box"))
        assert visible(page, "#list .object") == counts[-1]
    assert counts == [sum(found["score"] > percent / 100 for found in answer) for percent in (5, 55, 65, 100)]
    assert counts[0] > counts[1] > counts[2] > counts[3] == 0
    assert page.is_visible("#none")
    assert len(page.asked) == before


def test_thresholds_of_the_classes_hold_until_the_slider_is_moved(
    page: Any, photo: Path, answer: list[dict[str, Any]]
) -> None:
    def with_thresholds(route: Any) -> None:
        response = route.fetch()
        route.fulfill(response=response, json={**response.json(), "class_scores": own})

    names = sorted({found["name"] for found in answer})
    own = {names[0]: 0.2, names[1]: 0.8}
    page.route("**/model", with_thresholds)
    page.reload()
    page.wait_for_selector(READY, state="attached")
    look_at(page, photo)
    shown = [found for found in answer if found["score"] > own.get(found["name"], 0.5)]
    plain = [found for found in answer if found["score"] > 0.5]
    assert shown != plain
    assert visible(page, ".box") == visible(page, "#list .object") == len(shown)
    assert page.inner_text("#threshold-value") == "by class"
    slide_to(page, 50)
    assert visible(page, ".box") == len(plain)
    assert page.inner_text("#threshold-value") == "50 %"
    page.unroute("**/model")


def test_list_and_boxes_are_highlighted_together(page: Any, photo: Path) -> None:
    look_at(page, photo)
    page.locator("#list .object[data-index='2']").hover()
    assert page.locator(".box.lit").get_attribute("data-index") == "2"
    page.mouse.move(1, 1)
    assert page.locator(".lit").count() == 0
    top = page.evaluate(
        """() => {
            const place = document.querySelector("#boxes").getBoundingClientRect();
            const [x, y] = [place.left + place.width / 2, place.top + place.height / 2];
            return [x, y, document.elementFromPoint(x, y).closest("[data-index]")?.dataset.index];
        }"""
    )
    page.mouse.move(top[0], top[1])
    if top[2] is not None:
        assert page.locator("#list .object.lit").get_attribute("data-index") == top[2]


def test_keyboard_alone(page: Any, photo: Path) -> None:
    look_at(page, photo)
    page.locator("#threshold").focus()
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#threshold-value") == "51 %"
    while page.evaluate("!document.activeElement.matches('.object')"):
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.index") == "1"
    assert page.locator(".box.lit").get_attribute("data-index") == "1"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "save-json"  # the whole list is one tab stop
    assert page.locator(".box.lit").get_attribute("data-index") == "1"  # and the selection stays


def test_texts_for_screen_readers(page: Any, photo: Path, answer: list[dict[str, Any]]) -> None:
    look_at(page, photo)
    first = answer[0]
    x1, y1, x2, y2 = first["box"]
    label = page.locator("#list .object[data-index='0']").get_attribute("aria-label")
    assert label.startswith(f"{first['name']}, {round(100 * first['score'])} %, ")
    numbers = [int(word) for word in label.replace(",", "").split() if word.isdigit()][1:]
    np.testing.assert_allclose(numbers, [x2 - x1, y2 - y1, x1, y1], rtol=0, atol=0.6)
    assert page.locator("#image").get_attribute("alt").startswith("street.png: ")
    assert "objects above 50 %" in page.text_content("[role=status]")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, a")].filter((element) =>
            element.checkVisibility() && !element.ariaHidden && !element.textContent.trim()
            && !element.ariaLabel && !element.labels?.length).map((element) => element.outerHTML)"""
    )
    assert nameless == []


def test_classes_can_be_left_out(page: Any, photo: Path, answer: list[dict[str, Any]]) -> None:
    look_at(page, photo)
    slide_to(page, 5)
    button = page.locator("#classes .class").first
    name = button.get_attribute("data-name")
    button.click()
    left = sum(found["name"] != name for found in answer)
    assert visible(page, ".box") == left
    assert page.locator("#classes .class").first.get_attribute("aria-pressed") == "false"


def test_download_json(page: Any, photo: Path, answer: list[dict[str, Any]]) -> None:
    look_at(page, photo)
    slide_to(page, 60)
    with page.expect_download() as download:
        page.click("#save-json")
    assert download.value.suggested_filename == "street.json"
    rows = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    kept = [found for found in answer if found["score"] > 0.6]
    assert rows == [{"image": "street.png", "width": SIZE[0], "height": SIZE[1], "objects": kept}]


def test_download_picture(page: Any, photo: Path, answer: list[dict[str, Any]], server: Any) -> None:
    look_at(page, photo)
    slide_to(page, 75)
    with page.expect_download() as download:
        page.click("#save-picture")
    assert download.value.suggested_filename == "street-objects.png"
    drawn = np.asarray(Pillow.open(download.value.path()).convert("RGB")).astype(int)
    plain = np.asarray(Pillow.open(photo).convert("RGB")).astype(int)
    assert drawn.shape == plain.shape
    kept = [found for found in answer if found["score"] > 0.75]
    assert kept
    colours = {row["name"]: row["colour"] for row in httpx.get(f"{server.address}/model").json()["classes"]}
    x1, _, x2, y2 = kept[0]["box"]
    row, column = min(SIZE[1] - 1, round(y2) - 1), round((x1 + x2) / 2)  # on the lower edge of the best box
    rgb = [int(colours[kept[0]["name"]][at : at + 2], 16) for at in (1, 3, 5)]
    near = drawn[row - 1 : row + 2, column]
    assert np.abs(near - rgb).sum(axis=1).min() < 30
    assert (np.abs(drawn - plain).sum(axis=2) > 30).mean() < 0.5  # the rest is the image


def test_text_file_named_jpg(page: Any, tmp_path: Path, photo: Path) -> None:
    wrong = tmp_path / "notes.jpg"
    wrong.write_text("just words")
    drop(page, wrong)
    page.wait_for_selector("#problem:not([hidden])")
    assert (
        page.inner_text("#problem-text")
        == "notes.jpg: This is not a JPEG, PNG, WebP or BMP image; convert it."
    )
    assert page.is_visible("#drop")
    look_at(page, photo)  # the page still works
    assert not page.is_visible("#problem")
    count = page.inner_text("#count")
    drop(page, wrong)
    page.wait_for_selector("#problem:not([hidden])")
    page.wait_for_selector("#app[data-state=done]")
    assert page.inner_text("#count") == count  # the previous result is still there


def test_paste(page: Any, photo: Path) -> None:
    content = base64.b64encode(photo.read_bytes()).decode()
    page.evaluate(
        """(content) => {
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], "image.png", { type: "image/png" }));
            document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }));
        }""",
        content,
    )
    page.wait_for_selector("#app[data-state=done]")
    assert page.inner_text("#file").startswith("image.png")


def test_image_that_is_too_large_is_not_sent(page: Any, tmp_path: Path) -> None:
    large = tmp_path / "large.jpg"
    large.write_bytes(b"\xff\xd8\xff" + bytes(10_000_001))
    before = len(page.asked)
    page.set_input_files("#pick", large)
    page.wait_for_selector("#problem:not([hidden])")
    assert page.inner_text("#problem-text") == "large.jpg has 10.0 MB; the server accepts at most 10 MB."
    assert len(page.asked) == before


def test_camera(page: Any) -> None:
    """With a canvas instead of a camera."""
    page.evaluate(
        """() => {
            const canvas = Object.assign(document.createElement("canvas"), { width: 320, height: 240 });
            const pen = canvas.getContext("2d");
            setInterval(() => { pen.fillStyle = "teal"; pen.fillRect(0, 0, 320, 240); }, 50);
            const media = { getUserMedia: async () => (window.camera = canvas.captureStream(20)) };
            Object.defineProperty(navigator, "mediaDevices", { value: media });
        }"""
    )
    page.click("#drop [data-camera]")
    while page.evaluate("document.querySelector('#video').videoWidth") != 320:
        page.wait_for_timeout(20)
    page.click("#snap")
    page.wait_for_selector("#app[data-state=done]")
    assert page.inner_text("#file") == "camera.jpg, 320 \u00d7 240"
    assert page.evaluate("camera.getTracks().every((track) => track.readyState === 'ended')")


def test_dark_and_light(page: Any) -> None:
    def paper() -> int:
        found = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in found.strip("rgb()").split(","))

    light = paper()
    page.click("#theme")
    assert light > 600
    assert paper() < 200
    page.reload()
    assert paper() < 200  # it is remembered
    page.click("#theme")
    page.emulate_media(color_scheme="dark")
    assert paper() == light  # the page's choice overrides the system's


def test_docs(page: Any, server: Any) -> None:
    page.goto(f"{server.address}/docs")
    page.wait_for_selector("#docs[aria-busy=false]")
    routes = [element.inner_text() for element in page.query_selector_all(".route h2")]
    assert routes == list(httpx.get(f"{server.address}/openapi.json").json()["paths"])
    assert "too_many_pixels" in page.inner_text(".route[open]")
    assert f"{server.address}/detect" in page.inner_text("#example")
    assert fits(page)


def test_injected_scripts_do_not_run(page: Any) -> None:
    """The policy holds: an injected script does nothing, whether inline or in an attribute."""
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.append("window.hacked = true");
            document.body.append(script);
            try {
                document.body.innerHTML += "<img src=x onerror='window.hacked = true'>";
            } catch { /* the policy */ }
        }"""
    )
    assert page.evaluate("window.hacked") is None
    assert any("TrustedScript" in text for text in page.complaints)
    page.complaints.clear()
