"""The page to try models on, in headless Chromium: what a person types, presses and sees (`make test-browser`)."""

import shutil
import threading
import time

import pytest

import nmt_keras
from nmt_keras.serving import demo

pytestmark = pytest.mark.browser
webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

_SECONDS = 30


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window, which forgets everything."""
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(programs):
        pytest.skip("there is no chromium with a chromedriver: apt-get install chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def client(trained_copy):
    """Of a copy model that takes terms, without which the page has no glossary."""
    return nmt_keras.load(trained_copy / "run", terms_beam_size=10)


@pytest.fixture(scope="module")
def address(client):
    """Of a page with that model twice, side by side."""
    with demo.Server(demo.Demo([demo.Model("one", client), demo.Model("<b>two</b>", client)]), port=0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.url
        server.shutdown()


@pytest.fixture
def page(browser, address):
    """The page, newly opened; no script of it may fail, and nothing may be blocked."""
    browser.set_window_size(1400, 1000)
    browser.get(address)
    _wait(lambda: _all(browser, ".model h2"))
    browser.get_log("browser")
    yield browser
    assert browser.get_log("browser") == []


def _wait(condition):
    """The value of a condition once it holds."""
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        try:
            if value := condition():
                return value
        except Exception as error:  # an element that was replaced meanwhile
            last = error
        else:
            last = None
        time.sleep(0.05)
    raise AssertionError("it did not happen") from last


def _all(page, selector):
    return page.find_elements(By.CSS_SELECTOR, selector)


def _lines(page, model=0):
    items = page.find_elements(By.CSS_SELECTOR, "ol.lines")[model].find_elements(By.TAG_NAME, "li")
    return [item.text for item in items]


def _type(page, text):
    page.find_element(By.ID, "source").send_keys(text)


def test_text_is_translated_as_it_is_typed_by_both_models(page):
    assert [title.text for title in _all(page, ".model h2")] == ["one", "<b>two</b>"]
    _type(page, "a b c\n\nd e")
    _wait(lambda: _lines(page) == ["a b c", "", "d e"] and _lines(page, 1) == ["a b c", "", "d e"])
    _type(page, " f")
    _wait(lambda: _lines(page)[2] == "d e f")
    assert _all(page, "#status")[0].text.startswith("translated in")
    assert _all(page, "ol.lines li")[0].get_attribute("lang") == "yy"
    assert page.find_element(By.ID, "source").get_attribute("lang") == "xx"
    first = _all(page, "ol.lines .word")[0]
    assert "% sure" in first.get_attribute("title") and "rgba" in first.get_attribute("style")


def test_a_word_shows_what_it_reads_and_the_sentence_its_others_and_attention(page, client):
    [found] = client.translate(["a b c"], num_hypotheses=1)  # its words are pieces 0, 2 and 4
    read = [found.source_pieces[found.best.alignment[2 * number]] for number in range(3)]
    place = next(number for number in range(3) if read[number] in "abc")
    _type(page, "a b c")
    word = _wait(lambda: _all(page, "ol.lines .word"))[place]
    webdriver.ActionChains(page).move_to_element(word).perform()
    _wait(lambda: [mark.text for mark in _all(page, "#source-words mark")] == [read[place]])
    _wait(lambda: len(_all(page, "#others li")) > 1 and _all(page, "#attention table"))
    assert _all(page, "#others li")[0].text.startswith("a b c")
    assert _all(page, "#attention tbody th")[0].text == "a"
    assert "reads" in _all(page, "#attention td")[0].get_attribute("title")


def test_another_word_is_chosen_by_mouse_and_the_translation_goes_on_from_it(page):
    _type(page, "a b c")
    _wait(lambda: _all(page, "ol.lines .word"))[1].click()
    options = _wait(lambda: _all(page, "#words [role=option]"))
    words = [option.text for option in options]
    assert "b" in words and len(words) > 1
    number = next(number for number, word in enumerate(words) if word != "b")
    options[number].click()
    _wait(lambda: _lines(page)[0].split()[:2] == ["a", words[number]] and "undo" in _lines(page)[0])
    assert _lines(page, 1) == ["a b c"]
    next(each for each in _all(page, "li button") if each.text == "undo").click()
    _wait(lambda: _lines(page)[0] == "a b c")


def test_terms_of_a_glossary_are_placed_and_marked(page):
    _type(page, "a b c")
    _wait(lambda: _lines(page) == ["a b c"] == _lines(page, 1))
    page.find_element(By.CSS_SELECTOR, "#glossary-box summary").send_keys(Keys.ENTER)
    glossary = page.find_element(By.ID, "glossary")
    glossary.send_keys("b = h\nc = <i>x</i>\nd")
    _wait(lambda: [each.text for each in _all(page, "ol.lines .term")] == ["h", "h"])
    for model in _all(page, "ol.lines"):
        [terms] = model.find_elements(By.CSS_SELECTOR, "ul.terms")
        assert [each.text for each in terms.find_elements(By.TAG_NAME, "li")] == [
            "✓ h: placed",
            "✗ <i>x</i>: not placed",
        ]
        assert terms.accessible_name == "Terms of the glossary"
    assert "1 of 2 terms placed, one; 1 of 2 terms placed, <b>two</b>" in page.find_element(By.ID, "status").text
    assert page.find_element(By.ID, "glossary-note").text.startswith("Line 3 of the glossary, 'd': an entry is")
    assert not _all(page, "main i")
    _all(page, "ol.lines li")[0].click()
    _wait(lambda: _all(page, "#attention tbody th") and "h" in [th.text for th in _all(page, "#attention tbody th")])
    glossary.send_keys(Keys.BACKSPACE * 2)
    _wait(lambda: page.find_element(By.ID, "glossary-note").text == "")


def test_the_keyboard_is_enough(page):
    _type(page, "a b c")
    _wait(lambda: _lines(page) == ["a b c"] == _lines(page, 1))
    first = _all(page, "ol.lines .word")[0]
    page.switch_to.active_element.send_keys(Keys.TAB)
    assert page.switch_to.active_element.text == "Glossary"
    page.switch_to.active_element.send_keys(Keys.TAB)
    assert page.switch_to.active_element == first
    page.execute_script("arguments[0].closest('li').dir = 'rtl'", first)
    first.send_keys(Keys.ARROW_LEFT)
    assert page.switch_to.active_element.text == "b"
    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert page.switch_to.active_element == first
    page.execute_script("arguments[0].closest('li').dir = 'auto'", first)
    first.send_keys(Keys.ARROW_RIGHT)
    word = page.switch_to.active_element
    assert word.text == "b" and word.get_attribute("aria-haspopup") == "dialog"
    word.send_keys(Keys.ENTER)
    field = _wait(lambda: page.switch_to.active_element.get_attribute("id") == "own" and page.switch_to.active_element)
    _wait(lambda: _all(page, "#words [role=option]"))
    field.send_keys(Keys.ARROW_DOWN)
    assert page.switch_to.active_element.get_attribute("role") == "option"
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not page.find_element(By.ID, "menu").is_displayed() and page.switch_to.active_element.text == "b"
    page.switch_to.active_element.send_keys(Keys.ENTER)
    _wait(lambda: page.switch_to.active_element.get_attribute("id") == "own")
    page.switch_to.active_element.send_keys("h" + Keys.ENTER)
    _wait(lambda: _lines(page)[0].startswith("a h"))


def test_text_is_never_html(page):
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    _type(page, evil)
    _wait(lambda: _lines(page)[0])
    _all(page, "ol.lines li")[0].click()
    _wait(lambda: _all(page, "#others li"))
    assert page.find_element(By.ID, "source-words").text == evil
    assert not _all(page, "main img, section img, main script, b")


def test_many_lines_are_pasted_and_a_long_one_is_said(page):
    text = "\n".join(f"{a} {b}" for a in "abcdefgh" for b in "abcdefgh")
    page.execute_script(
        "const field = document.getElementById('source'); field.value = arguments[0];"
        "field.dispatchEvent(new Event('input'))",
        text,
    )
    _wait(lambda: _lines(page) == text.split("\n"))
    page.execute_script(
        "const field = document.getElementById('source'); field.value = 'a'.repeat(5001);"
        "field.dispatchEvent(new Event('input'))"
    )
    _wait(lambda: "Line 1 has more than 5000 characters: shorten it" in page.find_element(By.ID, "status").text)


@pytest.mark.parametrize("width", [400, 800, 1400])
def test_nothing_is_wider_than_the_window(page, width):
    page.set_window_size(width, 900)
    _type(page, "a b c d e f g h " * 3 + "\n" + "w" * 200)
    _wait(lambda: _all(page, "ol.lines .word"))
    _all(page, "ol.lines .word")[4].click()
    _wait(lambda: page.find_element(By.ID, "menu").is_displayed())
    inner, scroll = page.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
    assert scroll <= inner


def test_it_has_roles_and_names_for_screen_readers(page):
    _type(page, "a b c")
    _wait(lambda: _all(page, "ol.lines .word"))
    assert page.find_element(By.ID, "status").get_attribute("role") == "status"
    for field in _all(page, "textarea, input, select"):
        assert field.accessible_name or not field.is_displayed()
    for button in _all(page, "button"):
        assert button.accessible_name or not button.is_displayed()
