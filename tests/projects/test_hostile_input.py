"""Malicious input is refused and never causes a server error, on either database."""

import random
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
def test_a_tampered_form_is_refused(client, member, project, application, name, junk):
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


NAMES = [
    *("client_id", "client_secret", "response_type", "redirect_uri", "scope", "state", "nonce"),
    *("code_challenge", "code_challenge_method", "claims", "resource", "prompt", "ui_locales"),
    *("approval_prompt", "response_mode", "request", "request_uri", "max_age", "id_token_hint"),
    *("grant_type", "code", "code_verifier", "refresh_token", "device_code", "username"),
    *("password", "token", "token_type_hint", "group", "allow", "project", "chosen_project"),
    *("assertion", "client_assertion", "client_assertion_type", "callback", "next"),
]
VALUES = [
    *("", " ", "none", "login", "create", "none login", "true", "0", "-1", "9" * 30, "S256"),
    *("plain", "code", "token", "id_token", "code id_token", "authorization_code"),
    *("refresh_token", "password", "client_credentials", "access_token", "query", "fragment"),
    *("urn:ietf:params:oauth:grant-type:device_code", "project:read", "openid", "a\x00b"),
    *("urn:ietf:params:oauth:grant-type:jwt-bearer", "{", "{}", "[]", '{"id_token": 7}', "null"),
    *("http://[", "http://127.0.0.1/callback", "javascript:alert(1)", "http://a b", "//evil"),
    *("\U0001f600", "\u0130", "%", "%zz", "%00", "&=", ";", "\r\nX: y", "x" * 5000, "c" * 43),
]
PATHS = ["authorize", "token", "revoke_token", "introspect"]
BODIES = [
    (b"", "application/json"),
    (b"{", "application/json"),
    (b'{"grant_type": "refresh_token"}', "application/json"),
    (b"\xff\xfe=%ff%fe", "application/x-www-form-urlencoded"),
    (b"grant_type=%zz&token=%", "application/x-www-form-urlencoded"),
    (b"a=1&a=2&token=1&token=2", "application/x-www-form-urlencoded"),
    (b"&".join(b"n%d=1" % number for number in range(1500)), "application/x-www-form-urlencoded"),
    (b"token=" + b"x" * 3_000_000, "application/x-www-form-urlencoded"),
    (b"token=t", "application/x-www-form-urlencoded; charset=hex"),
    (b"token=t", "application/x-www-form-urlencoded; charset=utf-16"),
    (b"--x\r\n", "multipart/form-data; boundary=x"),
    (b"junk", "multipart/form-data"),
    (b"junk", "multipart/form-data; boundary=\x00"),
    (b"\x00", "text/plain"),
    (b"token=t", ""),
]


@pytest.mark.parametrize("name", PATHS)
def test_no_combination_of_parameters_is_a_server_error(client, member, project, application, name):
    """Includes requests with all the required parameters, and every method."""
    far = {
        "client_id": application.client_id,
        "response_type": "code",
        "redirect_uri": "http://127.0.0.1/callback",
        "code_challenge": "c" * 43,
        "code_challenge_method": "S256",
        "grant_type": "authorization_code",
        "token": "t",
    }
    chance = random.Random(name)  # the same choices in every run
    service = {"authorization": "Bearer service-token-of-the-test-suite"}
    for number in range(400):
        chosen = chance.sample(NAMES, chance.randint(1, 4))
        form = (far if number % 2 else {}) | {each: chance.choice(VALUES) for each in chosen}
        method = chance.choice(["get", "post", "post", "put", "delete", "options", "head"])
        query = urlencode(form if number % 3 else {})
        if number % 50 == 0:
            client.logout() if number % 100 else client.force_login(member)
        path = f"/oauth/{name}/?{query}"
        data = form if method == "post" else None
        answer = getattr(client, method)(path, data, headers=service if number % 5 else {})
        assert answer.status_code < 500, (method, form)
        if (name, method) == ("token", "post"):
            assert answer.status_code in (400, 401), form


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(("body", "media_type"), BODIES)
def test_no_body_is_a_server_error(client, member, application, name, body, media_type):
    client.force_login(member)
    headers = {"authorization": "Bearer service-token-of-the-test-suite"}
    path = f"/oauth/{name}/"
    answer = client.generic("POST", path, body, content_type=media_type, headers=headers)
    assert 200 <= answer.status_code < 500
    if name == "token":
        assert answer.status_code in (400, 401, 413)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(
    "query", ["%", "a=%zz", "%ff=%fe", "a=1&a=2", "\xff=\xfe", "a[]=1", ";;", "="]
)
def test_no_query_is_a_server_error(client, member, application, name, query):
    client.force_login(member)
    for method in ("GET", "POST"):
        # Set the raw query: the test client would encode it.
        answer = client.generic(method, f"/oauth/{name}/", QUERY_STRING=query)
        assert answer.status_code < 500


@pytest.mark.parametrize("name", ["client_id", "code_challenge", "state", "scope", "redirect_uri"])
def test_a_parameter_that_is_repeated_is_refused(client, member, application, name):
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
    query = urlencode([*honest.items(), (name, honest[name])])
    answer = client.get(f"/oauth/authorize/?{query}")
    assert (answer.status_code, answer.json()) == (400, {"error": "invalid_request"})


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
