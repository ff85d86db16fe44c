"""The site's settings, less what takes memory and shows nothing: with the whole site each of the lab's
services would begin with 90 MB, so with 32.
"""

from config.settings import *  # noqa: F403

INSTALLED_APPS = []
MIDDLEWARE = [
    "core.middleware.RequestMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
]
ROOT_URLCONF = "lab.service_urls"
ALLOWED_HOSTS = ["lab"]  # what neighbours.py calls them; nobody else reaches their sockets
