"""The sample's settings, its whole middleware included, with the benchmark's own views."""

import os
from pathlib import Path

from config.settings import *  # noqa: F403
from config.settings import CACHES, DATABASES, TEMPLATES

ROOT_URLCONF = "bench.project.urls"
ALLOWED_HOSTS = ["127.0.0.1"]
TEMPLATES[0]["DIRS"] = [Path(__file__).with_name("templates")]

default = DATABASES["default"]
if os.environ.get("BENCH_DATABASE") == "direct":
    default |= {key: DATABASES["direct"][key] for key in ("HOST", "PORT")}
    # how PostgreSQL's own table of connections tells them from PgBouncer's
    default["OPTIONS"] = default.get("OPTIONS", {}) | {
        "application_name": f"bench-{os.environ['BENCH_SERVICE']}"
    }
# each backend has its own format, and so its own keys
if "BENCH_CACHE" in os.environ:
    CACHES["default"] |= {"BACKEND": os.environ["BENCH_CACHE"], "KEY_PREFIX": "bench"}
if "BENCH_CONN_MAX_AGE" in os.environ:
    default["CONN_MAX_AGE"] = int(os.environ["BENCH_CONN_MAX_AGE"])
if "BENCH_POOL" in os.environ:
    pool = {"min_size": 1, "max_size": int(os.environ["BENCH_POOL"]), "timeout": 30}
    default["OPTIONS"] = default.get("OPTIONS", {}) | {"pool": pool}
if "BENCH_PREPARED" in os.environ:
    default["OPTIONS"] = default.get("OPTIONS", {}) | {"server_side_binding": True, "prepare_threshold": 5}
