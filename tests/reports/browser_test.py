"""The page in a browser: no width scrolls sideways, the dark is dark, tables sort, clips play, paper loses nothing."""

import json
import pathlib
import shutil

import browsers
import fake_runs
import pytest

from voc2vec_jax.reports import build

WIDTHS = (360, 768, 1280)
CLASSES = ("anger", "fear", "pain", "a class with a name of more letters than fit into one line of a phone")

pytestmark = [pytest.mark.slow, browsers.needed]


@pytest.fixture(scope="module")
def browser():
    with browsers.started() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three runs that leak, one incomplete, on two data sets, with their recordings."""
    where = tmp_path_factory.mktemp("report")
    root = fake_runs.recordings(where / "audio", CLASSES)
    for at, (dataset, folds) in enumerate((("own", 3), ("own", 2), ("cnvve", 3))):
        options = {"dataset": dataset, "title": dataset.upper(), "system": f"system-{at}", "folds": folds}
        run = fake_runs.write(where / "runs" / dataset / f"s{at}", labels=CLASSES, audio_root=root, seed=at, **options)
        tested = {"clips": 30, "identical": 20, "same_group": 0, "unknown_group": 3}
        fake_runs.edit(run, leaks={"tested": tested}, groups=11, hours=0.1)
    build.write([where / "runs"], where / "beside" / "r.html", formats=["png", "pdf"])
    build.write([where / "runs"], where / "alone" / "r.html", formats=["png"], embed_audio=True)
    return where


def opened(browser, path, width=1280, scheme="light"):
    """A tab with the page, and the list of what it complains of."""
    tab = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
    complaints = []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on(
        "request",
        lambda request: None if request.url.startswith(("file:", "data:")) else complaints.append(request.url),
    )
    tab.goto(pathlib.Path(path).as_uri())
    tab.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    return tab, complaints


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_no_width_scrolls_sideways_and_nothing_leaves_its_card(width, scheme, browser, folder):
    tab, complaints = opened(browser, folder / "beside" / "r.html", width, scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    outside = """[...document.querySelectorAll('.card, .clip, figure, .badge, summary')].filter((each) =>
        each.scrollWidth > each.clientWidth + 1 || each.getBoundingClientRect().right > innerWidth).length"""
    assert tab.evaluate(outside) == 0
    columns = "new Set([...document.querySelectorAll('#set1 figure:not(.wide)')].map((e) => e.offsetLeft)).size"
    assert tab.evaluate(columns) == {360: 1, 768: 2, 1280: 3}[width]
    assert complaints == []
    tab.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_and_page_have_the_colours_of_the_scheme_and_letters_stand_out(scheme, browser, folder):
    tab, _ = opened(browser, folder / "beside" / "r.html", 360, scheme)
    shown = tab.evaluate("[...document.querySelectorAll('img')].filter((e) => e.offsetWidth).map((e) => e.className)")
    assert shown and set(shown) == {scheme}
    levels = """(() => { const level = (colour) => { const [r, g, b] = colour.match(/[\\d.]+/g).map((x) => {
        const c = x / 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const behind = (e) => { const c = getComputedStyle(e).backgroundColor;
        return c.startsWith('rgba(0, 0, 0, 0') ? behind(e.parentElement) : c; };
      const names = 'body, .note, .badge, .alarm, a, td, dt, figcaption, .wrong, .right';
      return [...document.querySelectorAll(names)].map((e) => {
        const [a, b] = [level(getComputedStyle(e).color), level(behind(e))];
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }); })()"""
    assert min(tab.evaluate(levels)) >= 4.5  # WCAG 2.1, level AA
    darkness = "getComputedStyle(document.body).backgroundColor"
    assert (tab.evaluate(darkness) == "rgb(255, 255, 255)") == (scheme == "light")
    tab.context.close()


def test_a_heading_sorts_by_value_and_the_third_click_brings_the_order_back(browser, folder):
    tab, _ = opened(browser, folder / "beside" / "r.html")
    table = tab.locator("#scores table.sortable").first
    cells = lambda: table.locator("tbody tr td:nth-child(5)").all_text_contents()  # noqa: E731
    own = ["9.5 [9, 10]", "\N{MINUS SIGN}3.000", "\N{EM DASH}", "10.25\N{PLUS-MINUS SIGN}0.1"]
    table.locator("tbody tr td:nth-child(5)").evaluate_all(
        "(all, own) => all.map((e, i) => e.textContent = own[i])", own
    )
    button = table.locator("thead tr:last-child th:nth-child(5) button")
    rising = [own[at] for at in (1, 0, 3, 2)]  # what has no number comes last, either way
    for order in (rising, [own[at] for at in (3, 0, 1, 2)], own):
        button.click()
        assert cells() == order
    assert table.locator("[aria-sort]").count() == 0
    tab.context.close()


@pytest.mark.parametrize("place", ["beside", "alone"])
def test_clips_play_in_a_copy_that_was_sent_away(place, browser, folder, tmp_path):
    if place == "beside":
        shutil.copytree(folder / "beside", tmp_path / "sent")
    else:
        (tmp_path / "sent").mkdir()
        shutil.copy(folder / "alone" / "r.html", tmp_path / "sent")
    tab, complaints = opened(browser, tmp_path / "sent" / "r.html")
    heard = """async () => { const all = [...document.querySelectorAll('audio')]; const found = [];
        for (const each of all.slice(0, 6)) { each.load(); each.preload = 'auto';
          await new Promise((done) => { each.onloadedmetadata = done; each.onerror = done; });
          found.push(each.duration); } return [all.length, found]; }"""
    count, seconds = tab.evaluate(heard)
    assert count > 20 and all(1.2 <= each <= 1.4 for each in seconds) and complaints == []
    assert str(folder) not in (tmp_path / "sent" / "r.html").read_text()
    tab.context.close()


def test_a_page_without_its_clips_says_so(browser, folder, tmp_path):
    shutil.copy(folder / "beside" / "r.html", tmp_path)
    tab, _ = opened(browser, tmp_path / "r.html")
    tab.evaluate("document.querySelector('audio').load(); document.querySelector('audio').preload = 'auto'")
    said = tab.get_by_text("The clip is not beside this page").first
    said.wait_for(timeout=5000)
    assert said.is_visible()
    tab.context.close()


def test_paper_is_light_and_shows_what_is_folded_away(browser, folder, tmp_path):
    tab, _ = opened(browser, folder / "beside" / "r.html", 1280, "dark")
    tab.evaluate("for (const each of document.querySelectorAll('details')) each.open = false")
    tab.emulate_media(media="print")
    shown = tab.evaluate("[...document.querySelectorAll('img')].filter((e) => e.offsetWidth).map((e) => e.className)")
    assert shown and set(shown) == {"light"}
    assert tab.evaluate("getComputedStyle(document.body).color") == "rgb(29, 35, 41)"
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.evaluate("document.querySelectorAll('details:not([open])').length") == 0
    # On a sheet of A4 less its margins, at 96 pixels an inch
    tab.set_viewport_size({"width": 688, "height": 1000})
    wide = """[...document.querySelectorAll('section:not(.across) table, figure, .card, .clip')].filter(
        (each) => each.getBoundingClientRect().right > innerWidth + 1).length"""
    assert tab.evaluate(wide) == 0
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.evaluate("document.querySelectorAll('details:not([open])').length") > 0
    tab.pdf(path=str(tmp_path / "page.pdf"), prefer_css_page_size=True)
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    tab.context.close()


def test_without_a_script_everything_can_still_be_read(browser, folder):
    tab = browser.new_context(java_script_enabled=False).new_page()
    tab.goto((folder / "beside" / "r.html").as_uri())
    assert tab.locator("th button").count() == 0 and tab.locator(".badge.leak").first.is_visible()
    tab.context.close()
    assert json.loads((folder / "runs" / "own" / "s0" / "summary.json").read_text())["leaks"]  # the runs are untouched
