from argparse import ArgumentTypeError

from django.core.management.base import BaseCommand

from upkeep.lock import held


class LockedCommand(BaseCommand):
    """A command that every host's clock starts, and one host runs.

    The others say so and end with 0: that a colleague is at it is no failure.
    """

    def handle(self, **options):
        name = type(self).__module__.rpartition(".")[2]
        with held(name) as ours:
            self.stdout.write(self.work(**options) if ours else f"{name} runs elsewhere: nothing done")

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
