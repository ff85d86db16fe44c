import secrets
from datetime import timedelta
from hashlib import sha256

from django.conf import settings
from django.db import models
from django.utils import timezone

LIFETIME = timedelta(days=30)


def digest(key):
    return sha256(key.encode()).hexdigest()


class Token(models.Model):
    """What a client proves its user with.

    Only the digest is kept, so that who reads the database cannot use the tokens. A plain hash is enough:
    unlike a password, a key of 256 random bits is not found by trying.
    """

    digest = models.CharField(max_length=64, primary_key=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="tokens")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(db_index=True)

    def __str__(self):
        return f"{self.digest[:8]}, until {self.expires_at:%Y-%m-%d}"

    @classmethod
    async def issue(cls, user):
        """The token and its key, which nobody can tell later."""
        key = secrets.token_urlsafe(32)
        expires_at = timezone.now() + LIFETIME
        return await cls.objects.acreate(digest=digest(key), user=user, expires_at=expires_at), key

    @classmethod
    async def find(cls, key):
        """The token that is still good, with its user, or None."""
        valid = cls.objects.filter(expires_at__gt=timezone.now(), user__is_active=True)
        return await valid.select_related("user").filter(digest=digest(key)).afirst()
