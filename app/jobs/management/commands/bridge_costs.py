from django.core.management import BaseCommand

from jobs.bridge import costs


class Command(BaseCommand):
    help = "Measures what a call of async code costs from here, where no event loop runs."

    def add_arguments(self, parser):
        parser.add_argument("--calls", type=int, default=50, choices=range(1, 1001), metavar="1..1000")

    def handle(self, **options):
        for name, row in costs(options["calls"]).items():
            self.stdout.write(f"{row['microseconds']:10.1f} us  {row['loops']:4} event loops  {name}")
