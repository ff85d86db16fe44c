from django import template
from django.utils.html import format_html, format_html_join

from core import navigation

register = template.Library()

DOCUMENTATION = "https://docs.djangoproject.com/en/5.2/"


@register.inclusion_tag("core/navigation.html", takes_context=True)
def navigation_links(context):
    request = context.get("request")  # none where an error page is made without one
    path = request.path if request else ""
    page = navigation.current(path)
    return {"groups": list(navigation.groups()), "path": path, "current": page}


@register.simple_tag
def all_pages():
    return list(navigation.groups())


@register.simple_block_tag
def about(content, source, docs="topics/async/", title="Asynchronous support"):
    """What a page shows, where its source is, and what Django's documentation says of it.

    `source` are files from this checkout's root with blanks between them; `docs` is a page of Django's
    documentation, or a whole URL, and `title` that page's name.
    """
    files = format_html_join(
        ", ",
        '<a href="/source/{}"><code>{}</code></a>',
        ((name.removeprefix("app/"), name) for name in source.split()),
    )
    return format_html(
        '<aside class="about" aria-label="About this page">{}<p>Source: {}. Documentation: '
        '<a href="{}">{}</a>.</p></aside>',
        content,
        files,
        docs if "://" in docs else DOCUMENTATION + docs,
        title,
    )
