"""What holds for every page: it loads whole, fits, can be read by all, and is walked by the keyboard."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from core.navigation import PAGES
from playwright.sync_api import expect

NO_PAGES = ("/admin/", "/readyz", "/livez")
PATHS = [
    "/",
    *(page.path for pages in PAGES.values() for page in pages if page.path not in NO_PAGES),
    "/api/ninja/docs",
    "/login/",
    "/account/",
    "/source/lab/views.py",
]
DESK = {"width": 1280, "height": 720}
LOOKS = {
    "light": {"color_scheme": "light", "viewport": DESK},
    "dark": {"color_scheme": "dark", "viewport": DESK},
    "phone": {"color_scheme": "light", "viewport": {"width": 360, "height": 740}},
}
SERIOUS = ("serious", "critical")


def opened(page, path, status=200):
    answer = page.goto(path)
    assert answer.status == status
    policy = answer.headers.get("content-security-policy", "")
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    if path == "/api/ninja/docs":
        expect(page.locator(".opblock")).not_to_have_count(0)
    elif page.locator("#account").count():
        expect(page.locator("#account")).not_to_have_text("Account")  # the last thing that a page asks
    return page


def name_of(path):
    return re.sub(r"\W+", "-", path).strip("-") or "home"


def serious(page, **options):
    found = Axe().run(page, options=options or None).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {node['html'][:150]}"
        for one in found
        if one["impact"] in SERIOUS
        for node in one["nodes"]
    ]


def fits(page):
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{page.url} can be scrolled {wide} pixels to the side"


def in_each_look(page):
    """The page in one look after the other, loaded once."""
    for look, options in LOOKS.items():
        page.emulate_media(color_scheme=options["color_scheme"])
        page.set_viewport_size(options["viewport"])
        yield look


def check(page, screenshot, name, axe=True):
    for look in in_each_look(page):
        screenshot(page, f"{name}-{look}")
        fits(page)
        if axe:
            assert not serious(page), look


@pytest.mark.parametrize("path", PATHS)
def test_it_loads_whole_fits_and_can_be_read(new_page, screenshot, path):
    page = opened(new_page(), path)
    check(page, screenshot, name_of(path), axe=path != "/api/ninja/docs")  # Swagger UI's own affair


def test_likewise_for_somebody_who_is_logged_in(new_page, login, account, screenshot):
    page = new_page()
    login(page)
    for path in ("/posts/", "/posts/new/", "/chat/", "/lab/orm/", "/account/"):
        opened(page, path)
        check(page, screenshot, f"{name_of(path)}-in")
        expect(page.locator("#account")).to_have_text(account.username)


def test_likewise_for_a_page_that_is_not_there(new_page, screenshot):
    page = new_page(expected=[404])
    page.goto("/no-such-page")
    if page.get_by_text("DEBUG = True").count():
        pytest.skip("a site under DEBUG shows Django's page for developers")
    opened(page, "/no-such-page", status=404)
    check(page, screenshot, "no-such-page")
    expect(page.get_by_role("heading", level=1)).to_have_text("Not found")


def test_the_admin_runs_under_the_same_policy(new_page, login, screenshot):
    page = new_page()
    login(page)
    if not page.get_by_role("main").get_by_role("link", name="Admin").count():
        pytest.skip("this account is not staff")
    for path in ("/admin/", "/admin/auth/user/", "/admin/auth/user/add/", "/admin/posts/post/add/"):
        opened(page, path)
    screenshot(page, "admin")


@pytest.mark.parametrize("look", ["light", "phone"])
def test_the_keyboard_reaches_the_content_and_the_pages(new_page, look):
    page = opened(new_page(**LOOKS[look]), "/lab/")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()

    opened(page, "/lab/")
    wanted = page.get_by_role("navigation", name="Pages").get_by_role("link", name="Dashboard")
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "menu":  # closed on a narrow screen
            page.keyboard.press("Enter")
        if wanted.count() and wanted.evaluate("link => link === document.activeElement"):
            break
    expect(wanted).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/dashboard/")


def test_the_menu_of_a_phone_opens_and_closes(new_page):
    page = opened(new_page(**LOOKS["phone"]), "/cache/")
    pages = page.get_by_role("navigation", name="Pages")
    menu = page.get_by_role("button", name="Menu")
    expect(pages).to_be_hidden()
    menu.click()
    expect(pages.get_by_role("link", name="Cache")).to_have_attribute("aria-current", "page")
    page.keyboard.press("Escape")
    expect(pages).to_be_hidden()
    expect(menu).to_be_focused()


def test_the_theme_that_is_chosen_stays(new_page):
    page = opened(new_page(color_scheme="light"), "/")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    theme = page.get_by_role("button", name="Theme: auto")
    theme.click()  # light
    page.get_by_role("button", name="Theme: light").click()
    dark = page.evaluate(paper)
    assert dark != light
    opened(page, "/lab/")
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    assert page.evaluate(paper) == dark


def test_without_scripts_the_way_is_still_there(new_page):
    page = new_page(java_script_enabled=False)
    page.goto("/")
    expect(page.get_by_role("navigation", name="Pages").get_by_role("link", name="Posts")).to_be_visible()
    page.goto("/dashboard/")
    page.get_by_role("button", name="Ask").click()
    page.wait_for_url("**/dashboard/data?*")
