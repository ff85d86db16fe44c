"""Removes the sessions and the API's tokens that are over."""

from importlib import import_module

from django.conf import settings
from django.utils import timezone

from api.models import Token
from upkeep.command import LockedCommand


class Command(LockedCommand):
    help = __doc__

    def work(self, **options):
        import_module(settings.SESSION_ENGINE).SessionStore.clear_expired()  # does not say how many
        tokens, _ = Token.objects.filter(expires_at__lte=timezone.now()).delete()
        return f"expired sessions and {tokens} expired tokens removed"
