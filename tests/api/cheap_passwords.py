"""The site's settings where passwords take no time, for a server that checks hundreds of them."""

from config.settings import *  # noqa: F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
