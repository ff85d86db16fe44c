"""What a visitor does on the pages, and sees."""

import re

import pytest
from playwright.sync_api import expect

MEANWHILE = 20_000


def test_the_dashboard_draws_both_waterfalls(page, screenshot):
    page.goto("/dashboard/")
    page.get_by_role("button", name="unequal delays").click()
    for mode in ("async", "sync"):
        expect(page.locator(f"#{mode}-total")).to_contain_text("4 answered", timeout=MEANWHILE)
        expect(page.locator(f"#{mode}-calls tbody tr")).to_have_count(4)
    screenshot(page, "dashboard-asked")
    boxes = {
        mode: [bar.bounding_box() for bar in page.locator(f"#{mode}-calls .bar").all()]
        for mode in ("async", "sync")
    }
    ends = [box["x"] + box["width"] for box in boxes["sync"]]
    assert max(box["x"] for box in boxes["async"]) < min(box["x"] + box["width"] for box in boxes["async"])
    assert all(
        end <= box["x"] + 1 for end, box in zip(ends[:-1], boxes["sync"][1:], strict=True)
    )  # one pixel for rounding


def test_the_dashboard_says_what_cannot_be_asked(new_page):
    page = new_page(expected=[400])
    page.goto("/dashboard/")
    page.get_by_label("seconds each").fill("a,b")
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("alert")).to_contain_text("delay")


def test_fast_requests_are_answered_while_a_slow_one_sleeps(page, screenshot):
    page.goto("/lab/")
    page.get_by_role("button", name="Start").click()
    said = page.locator("#slow-state")
    expect(said).to_contain_text("fast requests were answered meanwhile", timeout=MEANWHILE)
    assert int(re.match(r"\d+", said.text_content())[0]) >= 3
    slow, *fast = [bar.bounding_box() for bar in page.locator("#slow-chart rect").all()]
    screenshot(page, "lab-asked")
    inside = [bar for bar in fast if bar["x"] + bar["width"] < slow["x"] + slow["width"]]
    assert len(inside) >= 3


def test_the_lab_measures_each_kind(new_page):
    page = new_page(expected=[429])  # what does harm rests between two turns, and the page waits for it
    page.goto("/lab/")
    page.get_by_role("button", name="Measure all").click()
    expect(page.locator("#kinds-state")).to_have_text("done", timeout=60_000)
    for row in page.locator("#kinds-rows tr").all():
        expect(row.locator("td").last).to_contain_text("ms")


@pytest.mark.parametrize("title", ["500 async views that sleep", "One blocking call in an async view"])
def test_who_is_answered_among_sleepers_is_drawn(new_page, screenshot, title):
    page = new_page(expected=[429])  # one experiment at a time, and the page waits for its turn
    page.goto("/lab/neighbours/")
    experiment = page.locator(".experiment", has=page.get_by_role("heading", name=title))
    experiment.get_by_role("button").click()
    expect(experiment.locator("output")).to_contain_text("fast request", timeout=60_000)
    assert experiment.locator("rect").count() > 2
    screenshot(page, f"lab-neighbours-asked-{title.split()[0].lower()}")


def test_a_job_tells_its_progress_until_it_is_done(page, screenshot):
    page.goto("/jobs/")
    page.get_by_label("What to do").select_option(label="ask twelve services")
    page.get_by_label("Text that goes along").fill("포도 ☂")
    page.get_by_role("button", name="Start").click()
    job = page.locator(".jobs li", has_text="포도 ☂")
    # a function, which is made once: the site's policy lets no text be evaluated later
    page.wait_for_function("() => document.querySelector('.jobs progress').value > 0", timeout=60_000)
    screenshot(page, "jobs-running")
    expect(job.locator("output")).to_contain_text("Done", timeout=60_000)
    assert job.locator("progress").evaluate("bar => bar.value") == 100


def test_a_job_is_cancelled(page, replica):
    if replica is None:
        pytest.skip("make dev has no worker: a job has ended when its order is answered")
    page.goto("/jobs/")
    page.get_by_label("What to do").select_option(label="compute")
    page.get_by_role("button", name="Start").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".jobs li output").first).to_contain_text("Cancelled", timeout=60_000)


def test_what_async_to_sync_costs_is_measured(page):
    page.goto("/jobs/bridge/")
    expect(page.locator("#bridge-state")).to_contain_text("under ASGI", timeout=MEANWHILE)
    assert page.locator("#bridge-rows tr").count() >= 3


def test_the_library_that_blocks_is_drawn_in_each_form(page):
    page.goto("/legacy/")
    for mode in ("sensitive", "free"):
        page.get_by_label("Form of the call").select_option(mode)
        page.get_by_role("button", name="Send").click()
        expect(page.locator("#legacy-state")).to_contain_text("4 calls in", timeout=MEANWHILE)
        expect(page.locator("#legacy-chart rect")).to_have_count(4)
    page.get_by_label("Form of the call").select_option("shared")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#legacy-state")).to_contain_text("WrongThreadError", timeout=MEANWHILE)


def test_eight_askers_at_once_cost_one_computation(page):
    page.goto("/cache/")
    page.get_by_role("button", name="Eight at once").click()
    rows = page.locator("#cache-rows tr")
    expect(rows).to_have_count(8, timeout=MEANWHILE)
    assert rows.locator("td:first-child").all_text_contents().count("computed") == 1
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(rows.first).to_contain_text("hit")


def test_the_echo_comes_back_over_a_websocket(page):
    page.goto("/")
    expect(page.locator("#echo-state")).to_have_text("open")
    page.get_by_label("Message").fill("안녕하세요")
    page.keyboard.press("Enter")
    expect(page.get_by_text("안녕하세요", exact=True)).to_be_visible()


def test_a_post_is_written_changed_given_a_file_and_deleted(new_page, login, tmp_path, screenshot):
    page = new_page(expected=[404])
    login(page)
    page.goto("/posts/")
    page.get_by_role("link", name="Write a post").click()
    page.get_by_label("Title").fill("브라우저에서 쓴 글")
    page.get_by_label("Body").fill("One.\n\n두 번째 문단.")
    page.get_by_label("Tags").fill("browser, 시험")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("브라우저에서 쓴 글")
    expect(page.get_by_role("status")).to_contain_text("Saved")

    page.get_by_role("link", name="Edit").click()
    page.get_by_label("Title").fill("고친 제목")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("고친 제목")

    file = tmp_path / "첨부.txt"
    file.write_text("붙임")
    page.get_by_label("File").set_input_files(file)
    page.get_by_role("button", name="Attach").click()
    with page.expect_download() as coming:
        page.get_by_role("link", name="첨부.txt").click()
    assert coming.value.path().read_text() == "붙임"
    screenshot(page, "post-own")
    page.get_by_role("button", name="Remove 첨부.txt").click()
    expect(page.get_by_role("link", name="첨부.txt")).to_have_count(0)

    address = page.url
    page.get_by_role("button", name="Delete").click()
    page.wait_for_url("**/posts/")
    assert page.goto(address).status == 404


def test_a_form_that_is_refused_keeps_what_was_written(new_page, login):
    page = new_page(expected=[400])
    login(page)
    page.goto("/posts/new/")
    page.get_by_label("Title").fill("A title")
    page.get_by_label("Body").fill("Some text.")
    page.get_by_label("Tags").fill("two words")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".errorlist")).to_contain_text("A tag is one word")
    expect(page.get_by_label("Body")).to_have_value("Some text.")


def test_who_logs_out_is_nobody_again(page, login):
    login(page)
    page.get_by_role("button", name="Log out").click()
    expect(page.locator("#account")).to_have_text("Log in")


@pytest.mark.parametrize("path", ["/posts/", "/lab/hops/"])
def test_a_page_leads_to_its_source(page, path):
    page.goto(path)
    page.get_by_role("complementary", name="About this page").get_by_role("link").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(r"^app/\w+/\w+\.py$"))
    expect(page.locator("pre")).to_contain_text("import")
