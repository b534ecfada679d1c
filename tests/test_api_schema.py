"""Every answer of the HTTP API is in the OpenAPI document, and none is a 5xx.

Schemathesis generates the requests, both those that the document allows and others.
"""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from drf_spectacular.generators import SchemaGenerator
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.allowances.caps import set_cap
from billing.allowances.limits import set_limit
from billing.organizations import create_organization, create_project
from config import api_document
from config.wsgi import application
from projects.authentication import credentials
from quota.resources import AI_CREDITS, MICRO
from tests.examples import examples
from tests.lazy_module import LazyModule

schemathesis = LazyModule("schemathesis")
checks = LazyModule("schemathesis.checks")
openapi_checks = LazyModule("schemathesis.specs.openapi.checks")
EXAMPLES = examples(4)
SERVICE = "service-token-of-the-test-suite"


@pytest.fixture
def project(db, redis_client):
    made = create_project(create_organization("Acme"), "Main")
    set_limit(made.organization, AI_CREDITS, 100 * MICRO)
    set_cap(made.organization, AI_CREDITS, "user", 5 * MICRO)
    return made


@pytest.fixture
def api(project):
    """The application in this process and transaction, as with Django's test client."""
    signals = request_started, request_finished
    for signal in signals:
        signal.disconnect(close_old_connections)
    yield schemathesis.openapi.from_wsgi("/api/schema/", application)
    for signal in signals:
        signal.connect(close_old_connections)


@pytest.fixture
def tokens(project):
    """The token of each caller."""
    scopes = ["project:read", "billing:read", "llm_gateway:read", "task:write"]
    _, key = credentials.issue_personal_api_key(project.organization, "reader", scopes)
    return {"the gateway": SERVICE, "a key": key, "nobody": ""}


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_every_answer_is_documented(api, project, tokens, mode):
    generation_mode = schemathesis.GenerationMode(mode)
    expected = [
        checks.not_a_server_error,
        openapi_checks.status_code_conformance,
        openapi_checks.content_type_conformance,
        openapi_checks.response_schema_conformance,
        openapi_checks.response_headers_conformance,
        # Undocumented parameters are ignored, so `negative_data_rejection` would fail.
        openapi_checks.positive_data_acceptance,
    ]
    for found in api.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy(generation_mode=generation_mode), is_ours=st.booleans())
        @settings(max_examples=EXAMPLES)
        def ask(case, is_ours):
            case.headers.pop("Authorization", None)
            if is_ours and "project_id" in case.path_parameters:
                case.path_parameters["project_id"] = project.pk
            for token in tokens.values():
                answer = case.call(headers={"Authorization": f"Bearer {token}"} if token else {})
                case.validate_response(answer, checks=expected)

        ask()


def test_every_nullable_schema_has_a_type(api):
    def nullable(part):
        if isinstance(part, dict):
            if part.get("nullable") is True:
                yield part
            part = list(part.values())
        if isinstance(part, list):
            for inner in part:
                yield from nullable(inner)

    found = list(nullable(api.raw_schema))
    assert found
    assert [part for part in found if "type" not in part] == []


@pytest.mark.parametrize("caller", ["the gateway", "a key", "nobody"])
def test_everybody_can_read_the_document(client, tokens, caller):
    headers = {"Authorization": f"Bearer {tokens[caller]}"} if tokens[caller] else {}
    assert client.get("/api/schema/", headers=headers).status_code == 200


def test_threads_that_ask_at_once_share_one_generated_document(client, monkeypatch):
    generate = SchemaGenerator.get_schema
    generated = []

    def count(self, request=None, public=False):
        generated.append(public)
        return generate(self, request, public)

    monkeypatch.setattr(SchemaGenerator, "get_schema", count)
    api_document._generated.cache_clear()
    together = Barrier(4)

    def ask(language):
        together.wait()
        return client.get("/api/schema/", {"lang": language, "version": language}).content

    with ThreadPoolExecutor(4) as threads:
        documents = set(threads.map(ask, ["en", "de", "fr", "en"]))
    assert len(documents) == 1
    assert generated == [True]


def test_every_401_429_and_503_documents_its_header(api):
    for path in api.raw_schema["paths"].values():
        for operation in path.values():
            assert {"200", "400", "401", "503"} <= operation["responses"].keys()
            for status, answer in operation["responses"].items():
                wants = {"429": "Retry-After", "503": "Retry-After", "401": "WWW-Authenticate"}
                assert wants.get(status) in {None, *answer.get("headers", {})}
