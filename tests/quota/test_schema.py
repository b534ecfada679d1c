"""The OpenAPI description of quota's endpoints."""

import pytest
from django.urls import include, path
from drf_spectacular.drainage import GENERATOR_STATS, reset_generator_stats
from drf_spectacular.generators import SchemaGenerator

from quota import urls

PATHS = {"/api/projects/{project_id}/quota_limits/", "/api/quota_changes/"}


@pytest.fixture(scope="module")
def paths() -> dict:
    reset_generator_stats()
    patterns = [path("api/", include(urls))]
    document = SchemaGenerator(patterns=patterns).get_schema(request=None, public=True)
    assert not GENERATOR_STATS._warn_cache
    assert not GENERATOR_STATS._error_cache
    return document["paths"]


def test_both_endpoints_are_described_without_a_warning(paths):
    assert set(paths) == PATHS


@pytest.mark.parametrize("status", ["200", "401", "403", "404", "503"])
def test_every_answer_of_quota_limits_has_an_example(paths, status):
    response = paths["/api/projects/{project_id}/quota_limits/"]["get"]["responses"][status]
    assert response["content"]["application/json"]["examples"]


def test_limited_and_not_limited_are_both_shown(paths):
    responses = paths["/api/projects/{project_id}/quota_limits/"]["get"]["responses"]
    examples = responses["200"]["content"]["application/json"]["examples"].values()
    shown = {example["value"]["limited"]["ai_credits"]["limited"] for example in examples}
    assert shown == {True, False}
