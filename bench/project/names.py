"""What the benchmark's own rows are found by."""

AUTHOR = "pergola-bench"
ROWS = 20
TAGS = ("bench-async", "bench-django", "bench-postgresql")
