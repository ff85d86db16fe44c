from urllib.parse import urlsplit

CELERY_DATABASE = 1


def for_celery(url):
    """The same Redis, another database of it. Celery has a notation of its own for unix sockets."""
    if not url:
        return "memory://localhost"
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"redis+socket://{parts.path}?virtual_host={CELERY_DATABASE}"
    return parts._replace(path=f"/{CELERY_DATABASE}").geturl()
