"""What the page says of what is drawn and chosen, in a real Chromium with the shipped model."""

import re

import pytest
from PIL import Image, ImageDraw
from support.chromium import CHROMIUM, PATIENCE_MS
from support.pictures import encoded, seven
from support.server import REAL, running

from inkdigits.model.artifact import shipped_artifact

pytest.importorskip("playwright")
from playwright.sync_api import expect
from support.visitor import THREE, Visitor

pytest_plugins = ["support.chromium"]
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, in the path or at CHROMIUM"),
    pytest.mark.skipif(not shipped_artifact().is_file(), reason="needs the shipped model"),
]

ONE = ((0.27, 0.25), (0.26, 0.4), (0.25, 0.6), (0.25, 0.75))
ZERO = (
    *((0.68, 0.26), (0.58, 0.34), (0.55, 0.5), (0.59, 0.67), (0.69, 0.74), (0.79, 0.66)),
    *((0.82, 0.5), (0.78, 0.33), (0.68, 0.26)),
)
K = ((0.3, 0.2), (0.3, 0.8), (0.3, 0.5), (0.65, 0.2), (0.3, 0.5), (0.65, 0.8))


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    data = {"INKDIGITS_DATA_DIR": str(tmp_path_factory.mktemp("data"))}
    with running(program=REAL, INKDIGITS_MAX_PIXELS="4000000", **data) as service:
        yield f"http://127.0.0.1:{service.port}/"


@pytest.fixture
def visitor(chromium, url):
    visitor = Visitor(chromium, url, accept_downloads=True)
    visitor.page.goto("")
    yield visitor
    visitor.context.close()


def says(visitor, headline):
    expect(visitor.page.locator("#decision")).to_have_text(headline, timeout=PATIENCE_MS)


def choose(visitor, *pictures):
    files = [
        {"name": name, "mimeType": "image/png", "buffer": content} for name, content in pictures
    ]
    visitor.page.set_input_files("#file", files)


def test_what_is_no_digit_is_claimed_to_be_none(visitor):
    page = visitor.page
    visitor.draw(K)
    says(visitor, "Not a digit")
    visitor.is_asked()
    expect(page.locator("#digit")).to_be_hidden()
    expect(page.locator("#meaning")).to_contain_text("Closest: ")
    expect(page.locator(".bars .top")).to_have_count(0)
    expect(page.locator("#question")).to_have_text("Is this reading right?")
    page.click("#right")
    expect(page.locator("#thanks")).to_have_text("Thank you. The reading was saved as right.")
    page.goto("history")
    expect(page.locator(".record .digit")).to_have_text("\N{EN DASH}")
    expect(page.locator(".record .pill")).to_have_text("Not a digit")
    expect(page.locator(".record .good")).to_have_text("✓ not a digit")


def test_several_digits_are_read_framed_and_kept_as_a_number(visitor):
    page = visitor.page
    visitor.draw(ONE)
    visitor.draw(ZERO)
    visitor.is_asked()
    says(visitor, "Several digits: 10")
    expect(page.locator("#boxes rect")).to_have_count(2)
    # One request gives both, and the probabilities of one digit are not shown.
    assert not any("/read?" in url for url in visitor.asked)
    expect(page.locator(".bars .share").first).to_have_text("\N{EN DASH}")
    expect(page.locator("#why")).to_be_disabled()
    expect(page.locator("#question")).to_have_text("Is it 10?")
    page.click("#wrong")
    page.fill("#number input", "16")
    page.press("#number input", "Enter")
    expect(page.locator("#thanks")).to_have_text("Thank you. The label 16 was saved.")
    page.goto("history")
    expect(page.locator(".record .digit")).to_have_text("10")
    expect(page.locator(".record .ink")).to_have_count(2)
    expect(page.locator(".record .bad")).to_have_text("✗ it is 16")


def test_card_never_shows_the_reading_of_another_picture(visitor):
    page = visitor.page
    choose(visitor, ("blank.png", encoded(Image.new("L", (300, 300), 255))))
    says(visitor, "No ink found in this picture")
    expect(page.locator("#meaning")).to_have_text("Use more light or a darker pen.")
    choose(visitor, ("cut.png", encoded(seven().crop((0, 0, 200, 130)))))
    says(visitor, "Cut off by the edge")
    expect(page.locator("#digit")).to_be_hidden()
    choose(visitor, ("seven.png", encoded(seven())))
    visitor.reads("7")
    # Over the service's limit of pixels, and reduced before it is sent.
    choose(visitor, ("large.png", encoded(seven(2600, 200))))
    visitor.reads("7")
    too_large = {"error": {"code": "image_too_large", "message": "It is too large."}}
    page.route("**/predict?*", lambda route: route.fulfill(status=413, json=too_large))
    choose(visitor, ("three.png", encoded(seven())))
    expect(page.locator("#problem")).to_have_text("It is too large.")
    says(visitor, "Nothing drawn yet")
    expect(page.locator("#digit")).to_have_text("\N{EN DASH}")
    assert page.locator(".bars .top").count() == 0


def test_drawing_survives_back_and_reload_and_is_kept_once(visitor):
    page = visitor.page
    visitor.draw()
    visitor.reads("3")
    page.goto("history")
    page.go_back()
    visitor.reads("3")
    page.reload()
    visitor.reads("3")
    page.click("#right")
    for _ in range(2):
        expect(page.locator("#thanks")).to_have_text("Thank you. The reading was saved as right.")
        page.reload()
    # What was labelled is not sent again.
    for button, is_thanked in (("clear", False), ("undo", True)):
        page.click(f"#{button}")
        expect(page.locator("#thanks")).to_be_visible(visible=is_thanked, timeout=PATIENCE_MS)
    page.wait_for_timeout(2000)  # a drawing is finished after 1.5 s
    choose(visitor, ("seven.png", encoded(seven())))
    visitor.reads("7")
    page.reload()
    visitor.reads("7")
    page.goto("history")
    expect(page.locator(".record")).to_have_count(2)


def test_strokes_are_undone_redone_erased_and_come_back_after_clear(visitor):
    page = visitor.page
    visitor.draw()
    visitor.reads("3")
    for button, digit in (
        ("undo", "\N{EN DASH}"),
        ("redo", "3"),
        ("clear", "\N{EN DASH}"),
        ("undo", "3"),
    ):
        page.click(f"#{button}")
        expect(page.locator("#digit")).to_have_text(digit, timeout=PATIENCE_MS)
    page.click("#eraser")
    visitor.draw()
    says(visitor, "No ink found")
    # A small digit by the same pen is not a blob.
    page.click("#clear")
    visitor.draw([(0.4 + 0.18 * x, 0.4 + 0.18 * y) for x, y in THREE])
    visitor.reads("3")


def test_several_files_are_read_into_a_table_and_a_csv(visitor):
    page = visitor.page
    two = Image.new("L", (400, 200), 255)
    for points in (ONE, ZERO):
        line = [(400 * x, 200 * y) for x, y in points]
        ImageDraw.Draw(two).line(line, fill=0, width=14, joint="curve")
    blank = encoded(Image.new("L", (99, 99), 255))
    files = [("=a.png", encoded(seven())), ("b.png", encoded(two)), ("c.png", blank)]
    choose(visitor, *files, ("d.png", b"not a picture"))
    expect(page.locator("#several tbody tr")).to_have_count(4, timeout=PATIENCE_MS)
    expect(page.locator("#several [role=status]")).to_contain_text("4 pictures: 1 sure")
    with page.expect_download() as download:
        page.click("#several a[download]")
    lines = download.value.path().read_text().splitlines()
    assert lines[0] == '"file","read","confidence","decision","reason"'
    assert re.match(r'"\'=a.png","7","0\.9\d+","accept",""', lines[1])
    assert re.match(r'"b.png","10","0\.\d+","(accept|review)",""', lines[2])
    assert lines[3].endswith('"","","reject","blank"')
    assert "is not a picture" in lines[4]


def test_why_is_one_click_away_and_a_risk_is_sent(visitor):
    page = visitor.page
    visitor.draw()
    visitor.reads("3")
    expect(page.locator("#risk-value")).to_have_text("service default, 0.1\u00a0%")
    expect(page.locator("#coverage")).to_contain_text("At this risk, ")
    page.click("#why")
    expect(page.locator("#saliency")).to_be_visible()
    expect(page.locator("#runner-up")).to_contain_text("The second most likely digit is ")
    with page.expect_response("**/predict?*risk=0.05*"):
        page.fill("#risk", "7")
    expect(page.locator("#coverage")).to_contain_text("At this risk, 9")
    page.click("#curl")
    expect(page.locator("#copied")).to_contain_text("command")
    assert "predict?risk=0.05" in page.input_value("#command")
    page.fill("#risk", "6")  # the command is of another risk
    expect(page.locator("#copied")).to_have_text("")
    expect(page.locator("#command")).to_be_hidden()
    nothing = {"prediction": None, "explanation": {"runner_up": None}}
    page.route("**/predict?*explain=true*", lambda route: route.fulfill(json=nothing))
    with page.expect_response("**/predict?*explain=true*"):
        page.click("#why")
    expect(page.locator("#reasons")).to_be_hidden()
    assert visitor.complaints == []


def test_nothing_is_kept_where_it_is_not_to_be_nor_are_examples(visitor):
    page = visitor.page
    page.click('[aria-label="Example: K"]')
    says(visitor, "Not a digit")
    page.check("#private")
    expect(page.locator("#not-kept")).to_be_visible()
    visitor.draw()
    expect(page.locator("#digit")).to_have_text("3", timeout=PATIENCE_MS)
    choose(visitor, ("a.png", encoded(seven())), ("b.png", encoded(seven())))
    expect(page.locator("#several [role=status]")).to_contain_text("2 pictures")
    page.wait_for_timeout(2000)  # a drawing is finished after 1.5 s
    expect(page.locator("#feedback")).to_be_hidden()
    assert not any("history?" in url for url in visitor.asked)
    page.uncheck("#private")  # of new drawings
    page.click("#clear")
    page.goto("history")
    expect(page.locator(".record")).to_have_count(0)
    page.goto("")
    page.check("#private")
    page.reload()
    expect(page.locator("#private")).to_be_checked()


def test_a_choice_during_the_reading_of_several_files_counts_from_then_on(visitor):
    page, held = visitor.page, []
    status, rows = page.locator("#several [role=status]"), page.locator("#several tbody tr")
    files = [(f"{name}.png", encoded(seven())) for name in "abc"]
    page.route("**/history?*", lambda route: held.append(route))
    with page.expect_request("**/history?*"):
        choose(visitor, *files)
    page.check("#private")
    held.pop().continue_()
    expect(status).to_contain_text("3 pictures: 3 sure", timeout=PATIENCE_MS)
    assert held == []
    page.uncheck("#private")
    with page.expect_request("**/history?*"):
        choose(visitor, *files)
    page.check("#private")
    choose(visitor, *files[:2])
    expect(status).to_contain_text("2 pictures: 2 sure", timeout=PATIENCE_MS)
    with page.expect_response("**/history?*"):
        held.pop().continue_()
    page.wait_for_timeout(300)
    expect(rows).to_have_count(2)
    expect(status).to_contain_text("2 pictures: 2 sure")


def test_draw_page_is_light(visitor):
    page, sizes = visitor.page, []
    page.on("response", lambda response: sizes.append(len(response.body())))
    page.reload(wait_until="networkidle")
    assert sum(sizes) < 150_000
    assert visitor.complaints == []
