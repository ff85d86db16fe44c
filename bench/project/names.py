"""What the benchmark's own rows are found by."""

AUTHOR = "pergola-bench"
ROWS = 20
CACHED = "pergola-bench"  # a key
CACHED_SECONDS = 600
VALUE = {"id": 7, "title": "A value", "body": "some two hundred characters of an answer. " * 5}
TAGS = ("bench-async", "bench-django", "bench-postgresql")
