"""Every page of the site, once: the navigation and the home page are made from it."""

from dataclasses import dataclass

from django.urls import is_valid_path


@dataclass(frozen=True)
class Page:
    path: str
    name: str
    about: str


PAGES = {
    "Measured": [
        Page("/dashboard/", "Dashboard", "several services asked at once, and one after another"),
        Page("/lab/", "Lab", "what slow code does to its neighbours"),
        Page("/lab/neighbours/", "Neighbours", "the fast view behind each kind of sleeper"),
        Page("/lab/orm/", "ORM traps", "what raises SynchronousOnlyOperation, and what to write instead"),
        Page("/lab/hops/", "Thread hops", "how often a request changes threads"),
        Page("/legacy/", "Legacy", "a library that blocks, called from async code"),
        Page("/cache/", "Cache", "a dear value, computed once"),
    ],
    "Built": [
        Page("/posts/", "Posts", "the async ORM all through, with forms and attachments"),
        Page("/chat/", "Chat", "rooms over WebSockets, nothing lost when a server goes"),
        Page("/jobs/", "Jobs", "Celery's tasks, their progress pushed to the page"),
        Page("/jobs/bridge/", "async_to_sync", "sync code that calls async code, and what a call costs"),
        Page("/api/", "API", "the posts by Django REST framework and by Django Ninja"),
        Page("/visits/", "Visits", "a page from the database, by the async ORM"),
    ],
    "Operated": [
        Page("/upkeep/", "Upkeep", "what commands do by the clock, on one host at a time"),
        Page("/admin/", "Admin", "Django's own, for staff"),
        Page("/readyz", "/readyz", "the database, Redis and migrations answer"),
        Page("/livez", "/livez", "the process answers"),
    ],
}


def groups():
    """Without the pages of apps that somebody took out."""
    for title, pages in PAGES.items():
        if found := [page for page in pages if is_valid_path(page.path)]:
            yield title, found


def current(path):
    """The page that this path belongs to: the longest that it begins with."""
    pages = [page for _, pages in groups() for page in pages if path.startswith(page.path)]
    return max(pages, key=lambda page: len(page.path), default=None)
