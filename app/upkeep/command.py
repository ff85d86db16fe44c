from argparse import ArgumentTypeError
from datetime import timedelta

from django.core.management.base import BaseCommand
from django.utils import timezone

from upkeep.lock import held
from upkeep.models import Run

# Half of what is between two runs by the clock (pergola.yml: an hour), so that neither the hosts' different
# delays nor a run that was late make one too many or too few.
FRESH = timedelta(minutes=30)


class LockedCommand(BaseCommand):
    """A command that every host's clock starts, and one host runs.

    The lock keeps two from running at once, and the row of the last run keeps the second host from doing all
    again when the first has ended. Who does nothing says so and ends with 0: that is no failure.
    """

    def create_parser(self, *args, **kwargs):
        parser = super().create_parser(*args, **kwargs)
        parser.add_argument("--force", action="store_true", help="also where it was done only just now")
        return parser

    def handle(self, *, force, **options):
        name = type(self).__module__.rpartition(".")[2]
        with held(name) as ours:
            self.stdout.write(
                self.once(name, force, options) if ours else f"{name} runs elsewhere: nothing done"
            )

    def once(self, name, force, options):
        last = Run.objects.filter(name=name).first()
        if last and not force:
            ago = timezone.now() - last.at
            if abs(ago) < FRESH:  # hosts' clocks differ
                return f"{name} was done {max(0, round(ago.total_seconds()))} s ago: nothing done"
        said = self.work(**options)
        Run.objects.update_or_create(name=name, defaults={"at": timezone.now()})
        return said

    def work(self, **options):
        """Returns what was done, in a line for the journal."""
        raise NotImplementedError


def up_to(limit):
    """An argument's type."""

    def number(text):
        if not text.isdecimal() or not 1 <= int(text) <= limit:
            raise ArgumentTypeError(f"{text!r} is not a number from 1 to {limit}")
        return int(text)

    return number
