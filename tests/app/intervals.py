"""What the tests of concurrency assert: order and overlap, never a length of time."""

import itertools


def overlap(one, other):
    return one["began"] < other["ended"] and other["began"] < one["ended"]


def all_overlap(calls):
    return all(overlap(one, other) for one, other in itertools.combinations(calls, 2))


def none_overlap(calls):
    return not any(overlap(one, other) for one, other in itertools.combinations(calls, 2))
