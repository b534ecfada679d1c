"""The product's settings and one more path."""

from config.settings import *  # noqa: F403

ROOT_URLCONF = "benchmarks.quota_site.urls"
