"""The page in a real headless Chromium. Runs where Chromium and its driver are installed; downloads nothing."""

import shutil

import pytest

from pytest_membudget.records.measurement import TimelinePoint
from pytest_membudget.records.report import Report, TestRecord
from pytest_membudget.report.writing import write_report

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (extra dev)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.processes,
    pytest.mark.xdist_group(__name__),
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="chromium and chromedriver are not installed; on Debian: chromium-driver",
    ),
]
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    yield started
    started.quit()


@pytest.fixture
def open_page(browser, tmp_path):
    def show(report, *, width=1200, scheme="light"):
        path = tmp_path / "report.html"
        write_report(report, path)
        browser.set_window_size(width, 900)
        feature = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": feature})
        browser.get_log("browser")
        browser.get(path.as_uri())
        return browser

    return show


def large_report(count=5000):
    return Report(
        tests=tuple(
            TestRecord(
                nodeid=f"tests/test_{n % 50}.py::test_{n:05}",
                outcome="passed",
                verdict="over" if n % 1000 == 0 else "within",
                budget_bytes=10**9,
                peak_bytes=n * 4096,
                timeline=tuple(TimelinePoint(step / 10, n * step) for step in range(32)),
            )
            for n in range(count)
        )
    )


def names(browser):
    cells = "[...document.querySelectorAll('#test-table tr.row td.name')].map(cell => cell.textContent)"
    return browser.execute_script(f"return {cells}")


def press(browser, script):
    browser.execute_script(script)


def serious_faults(browser):
    from importlib import resources

    axe = resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    browser.execute_script(axe)
    found = browser.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    return [
        (fault["id"], [node["target"] for node in fault["nodes"]][:3])
        for fault in found["violations"]
        if fault["impact"] in {"serious", "critical"}
    ]


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (400, "dark"),
        (1200, "light"),
        pytest.param(400, "light", marks=pytest.mark.slow),
        pytest.param(1200, "dark", marks=pytest.mark.slow),
    ],
)
def test_no_serious_fault_and_no_console_error(open_page, report, width, scheme):
    browser = open_page(report, width=width, scheme=scheme)
    press(browser, "document.querySelector('#test-table tr.row').click()")
    assert browser.get_log("browser") == []
    assert serious_faults(browser) == []


def test_a_phone_need_not_scroll_sideways(open_page, report, hostile_report):
    for shown in (report, hostile_report):
        browser = open_page(shown, width=400)
        size = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        wide, room = browser.execute_script(f"return {size}")
        assert wide <= room


def test_five_thousand_tests_open_lightly_sort_and_filter(open_page):
    browser = open_page(large_report())
    assert len(names(browser)) == 100
    assert browser.find_element("id", "shown").text == "5,000 of 5,000 tests"
    assert names(browser)[:2] == ["tests/test_0.py::test_04000", "tests/test_0.py::test_03000"]
    assert len(browser.find_elements("css selector", "svg")) <= 5 * 2 + 200

    press(browser, "document.querySelector('th[data-key=\"0\"] button').click()")
    assert names(browser)[0].endswith("test_04999")
    press(browser, "document.querySelector('th[data-key=\"0\"] button').click()")
    assert names(browser)[0].endswith("test_00000")
    assert browser.find_element("css selector", "th[data-key='0']").get_attribute("aria-sort") == "ascending"

    browser.find_element("id", "filter-name").send_keys("TEST_7 0000")
    assert names(browser) == ["tests/test_7.py::test_00007"]
    browser.find_element("id", "filter-name").clear()
    press(browser, "document.querySelector('button[data-filter=over]').click()")
    assert len(names(browser)) == 5
    assert browser.get_log("browser") == []


def test_scrolling_draws_more_rows(open_page):
    from selenium.webdriver.support.ui import WebDriverWait

    browser = open_page(large_report(1000))
    press(browser, "document.querySelector('.sentinel').scrollIntoView()")
    WebDriverWait(browser, 30).until(lambda driver: len(names(driver)) > 100)


def test_a_row_opens_with_its_message_and_timeline(open_page, report):
    browser = open_page(report)
    press(browser, "document.querySelector('#test-table tr.row button').click()")
    more = browser.find_element("css selector", "tr.more")
    assert "measured  peak of the whole process tree" in more.get_attribute("textContent")
    assert more.find_elements("css selector", "svg.timeline")
    press(browser, "document.querySelector('#test-table tr.row button').click()")
    assert browser.find_elements("css selector", "tr.more") == []


def test_hostile_names_are_shown_and_never_run(open_page, hostile_report):
    browser = open_page(hostile_report)
    shown = names(browser)
    assert "test_x.py::test[</script><script>alert(1)</script>]" in shown
    assert "test_x.py::test[\"quotes' and {{ 7*7 }} {% raw %}]" in shown
    assert browser.get_log("browser") == []
