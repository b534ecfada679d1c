"""The product's settings with more paths."""

from config.settings import *  # noqa: F403

ROOT_URLCONF = "benchmarks.quota_site.urls"
