"""Text that no honest client sends: refused, never a server error, on either database."""

from urllib.parse import urlencode

import pytest

from projects.models import OAuthApplication

pytestmark = pytest.mark.django_db

HOSTILE = ["a\x00b", "\U0001f600", "x" * 5000]


@pytest.fixture
def application() -> OAuthApplication:
    return OAuthApplication.objects.create(
        client_type="public", redirect_uris="http://127.0.0.1/callback"
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_an_authorization_request_of_junk_is_refused(client, member, application, text):
    client.force_login(member)
    honest = {
        "client_id": application.client_id,
        "response_type": "code",
        "redirect_uri": "http://127.0.0.1/callback",
        "code_challenge": "c" * 43,
        "code_challenge_method": "S256",
        "state": "s",
        "scope": "project:read",
    }
    for name in honest:
        answer = client.get("/oauth/authorize/?" + urlencode(honest | {name: text}))
        assert answer.status_code < 500
        answer = client.post("/oauth/authorize/", honest | {name: text, "allow": "true"})
        assert answer.status_code < 500


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("path", ["/oauth/token/", "/oauth/revoke_token/"])
def test_a_token_request_of_junk_is_refused(client, application, path, text):
    for grant in (
        {"grant_type": "authorization_code", "code": text, "code_verifier": "v" * 43},
        {"grant_type": "authorization_code", "code": "c", "code_verifier": text},
        {"grant_type": "refresh_token", "refresh_token": text},
        {"grant_type": text},
        {"token": text, "token_type_hint": text},
        {"client_id": text, "token": "t", "grant_type": "refresh_token", "refresh_token": "t"},
        {"client_secret": text, "token": "t"},
    ):
        answer = client.post(path, {"client_id": application.client_id} | grant)
        assert answer.status_code < 500


@pytest.mark.parametrize(
    ("name", "junk"),
    [
        ("resource", "http://["),
        ("client_id", "nobody"),
        ("code_challenge", "c" * 129),
        ("nonce", "n" * 256),
    ],
)
def test_a_form_that_was_tampered_with_is_refused(client, member, project, application, name, junk):
    client.force_login(member)
    honest = {
        "client_id": application.client_id,
        "response_type": "code",
        "redirect_uri": "http://127.0.0.1/callback",
        "code_challenge": "c" * 43,
        "code_challenge_method": "S256",
        "scope": "project:read",
    }
    assert client.get("/oauth/authorize/?" + urlencode(honest | {name: junk})).status_code == 400
    form = honest | {name: junk, "allow": "true", "project": project.pk}
    assert client.post("/oauth/authorize/?" + urlencode(honest), form).status_code == 400


@pytest.mark.parametrize("path", ["/oauth/token/", "/oauth/revoke_token/"])
@pytest.mark.parametrize("credentials", ["YQBiOmM=", "YSUwMGI6Yw==", "\xe9", "!", "YQ=="])
def test_client_credentials_of_junk_are_refused(client, application, path, credentials):
    form = {"grant_type": "refresh_token", "refresh_token": "t", "token": "t"}
    answer = client.post(path, form, headers={"authorization": f"Basic {credentials}"})
    assert 400 <= answer.status_code < 500


@pytest.mark.parametrize("text", HOSTILE)
def test_a_login_of_junk_is_refused(client, member, text):
    for form in ({"username": text, "password": "p"}, {"username": "ada", "password": text}):
        answer = client.post("/login/", form | {"next": text})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    "name",
    [
        "personalapikey",
        "oauthaccesstoken",
        "oauthapplication",
        "slackworkspace",
        "user",
        "organization",
        "project",
    ],
)
def test_searching_the_admin_for_junk_is_refused(admin_client, name):
    for query in ({"q": "a\x00b"}, {"state": "\x00", "is_active__exact": "\x00"}):
        assert admin_client.get(f"/admin/projects/{name}/", query).status_code == 400


@pytest.mark.parametrize("name", ["personalapikey", "organization"])
def test_an_admin_page_of_junk_does_not_exist(admin_client, name):
    assert admin_client.get(f"/admin/projects/{name}/a\x00b/change/").status_code in (302, 404)
