"""OAuth for desktop clients: authorization code with PKCE, for the project the user chose."""

import base64
import hashlib
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.test import Client
from oauthlib.common import Request
from oauthlib.oauth2.rfc6749.errors import InvalidRequestError

from projects.models import (
    Change,
    Membership,
    OAuthAccessToken,
    OAuthApplication,
    OAuthGrant,
    OAuthRefreshToken,
    Project,
)
from projects.oauth.authorization import ProjectBoundValidator
from projects.tokens import sha256

pytestmark = pytest.mark.django_db

REDIRECT = "http://127.0.0.1:49152/callback"
VERIFIER = "v" * 64
CHALLENGE = (
    base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
)


@pytest.fixture
def desktop() -> OAuthApplication:
    """A public client, which can't keep a secret."""
    return OAuthApplication.objects.create(
        name="Desktop",
        client_type=OAuthApplication.CLIENT_PUBLIC,
        authorization_grant_type=OAuthApplication.GRANT_AUTHORIZATION_CODE,
        redirect_uris="http://127.0.0.1/callback",
    )


@pytest.fixture
def request_of(desktop):
    def _request_of(**changes):
        query = {
            "response_type": "code",
            "client_id": desktop.client_id,
            "redirect_uri": REDIRECT,
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "state": "xyz",
        } | changes
        return "/oauth/authorize/?" + urlencode({k: v for k, v in query.items() if v is not None})

    return _request_of


@pytest.fixture
def consent(client, request_of):
    """Return a function that submits the page's form and returns the redirect's query."""

    def _consent(project, allow="true", **changes):
        page = client.get(request_of())
        assert page.status_code == 200, page.content
        hidden = dict(
            re.findall(r'type="hidden" name="([^"]+)"(?: value="([^"]*)")?', page.content.decode())
        )
        form = hidden | {"allow": allow, "project": project.pk if project else ""} | changes
        answer = client.post(request_of(), form)
        if not answer.headers.get("Location", "").startswith(REDIRECT + "?"):
            return answer
        return parse_qs(urlsplit(answer["Location"]).query)

    return _consent


@pytest.fixture
def exchange(client, desktop):
    def _exchange(**form):
        return client.post("/oauth/token/", {"client_id": desktop.client_id} | form)

    return _exchange


@pytest.fixture
def tokens(client, member, project, consent, exchange):
    """The tokens that a client gets from an ordinary authorization."""
    client.force_login(member)
    code = consent(project)["code"][0]
    answer = exchange(
        grant_type="authorization_code",
        code=code,
        redirect_uri=REDIRECT,
        code_verifier=VERIFIER,
    )
    assert answer.status_code == 200, answer.content
    return answer.json()


def test_the_tokens_are_bound_to_the_project_that_was_chosen(tokens, project, member):
    assert tokens["access_token"].startswith("pha_")
    assert tokens["refresh_token"].startswith("phr_")
    access = OAuthAccessToken.objects.get(token_checksum=sha256(tokens["access_token"]))
    refresh = OAuthRefreshToken.objects.get(token_checksum=sha256(tokens["refresh_token"]))
    assert access.project == refresh.project == project
    assert (access.user, access.token, refresh.token) == (member, "", "")


def test_a_refreshed_pair_stays_bound_and_the_old_access_token_is_announced(
    tokens, exchange, project
):
    answer = exchange(grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert answer.status_code == 200
    renewed = answer.json()
    access = OAuthAccessToken.objects.get()
    assert access.token_checksum == sha256(renewed["access_token"])
    assert access.project == project
    assert Change.objects.get().payload == {"sha256": sha256(tokens["access_token"])}
    again = exchange(grant_type="refresh_token", refresh_token=renewed["refresh_token"])
    assert again.status_code == 200


def test_a_replayed_refresh_token_ends_the_whole_family(tokens, exchange):
    exchange(grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    replay = exchange(grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert replay.status_code == 400
    assert not OAuthAccessToken.objects.exists()
    assert Change.objects.count() == 2


@pytest.fixture
def code_of(client, member, project, consent):
    """Return the form that exchanges a new code."""
    client.force_login(member)
    return {
        "grant_type": "authorization_code",
        "code": consent(project)["code"][0],
        "redirect_uri": REDIRECT,
        "code_verifier": VERIFIER,
    }


def test_a_code_that_is_used_twice_revokes_its_tokens(exchange, code_of):
    tokens = exchange(**code_of).json()

    assert exchange(**code_of).json() == {"error": "invalid_grant"}

    assert not OAuthAccessToken.objects.exists()
    assert Change.objects.get().payload == {"sha256": sha256(tokens["access_token"])}
    again = exchange(grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert again.status_code == 400


def test_a_code_that_is_used_twice_revokes_its_refreshed_tokens(exchange, code_of):
    tokens = exchange(**code_of).json()
    for _ in range(2):
        form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
        tokens = exchange(**form).json()

    # A thief has only the code: neither the verifier nor the right redirect address.
    stolen = code_of | {"code_verifier": "w" * 64, "redirect_uri": "http://127.0.0.1:1/callback"}
    assert exchange(**stolen).status_code == 400

    assert not OAuthAccessToken.objects.exists()
    assert sha256(tokens["access_token"]) in {
        change.payload["sha256"] for change in Change.objects.all()
    }
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    assert exchange(**form).status_code == 400


def test_a_code_that_another_client_uses_revokes_nothing(client, exchange, code_of):
    exchange(**code_of)
    stranger = OAuthApplication.objects.create(client_type="public", redirect_uris=REDIRECT)

    answer = client.post("/oauth/token/", code_of | {"client_id": stranger.client_id})

    assert answer.status_code == 400
    assert OAuthAccessToken.objects.exists()


def test_a_refused_code_revokes_nothing_and_still_works(exchange, code_of):
    assert exchange(**code_of | {"code_verifier": "w" * 64}).status_code == 400
    assert exchange(**code_of).status_code == 200


@pytest.mark.parametrize("which", ["access_token", "refresh_token"])
def test_the_client_can_revoke_and_the_change_feed_reports_it(client, tokens, desktop, which):
    answer = client.post(
        "/oauth/revoke_token/", {"client_id": desktop.client_id, "token": tokens[which]}
    )
    assert answer.status_code == 200
    assert not OAuthAccessToken.objects.exists()
    assert Change.objects.get().payload == {"sha256": sha256(tokens["access_token"])}


def test_another_client_can_revoke_nothing(client, tokens):
    stranger = OAuthApplication.objects.create(
        client_type="public", authorization_grant_type="authorization-code"
    )
    client.post(
        "/oauth/revoke_token/",
        {"client_id": stranger.client_id, "token": tokens["access_token"]},
    )
    assert OAuthAccessToken.objects.exists()


def test_a_user_who_left_gets_no_further_token(tokens, exchange):
    Membership.objects.all().delete()
    answer = exchange(grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert answer.status_code == 400


def test_a_deactivated_user_gets_no_further_token(tokens, exchange, member):
    member.is_active = False
    member.save()
    answer = exchange(grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert answer.status_code == 400


def test_a_user_who_leaves_before_the_code_is_used_gets_no_token(
    client, member, project, consent, exchange
):
    client.force_login(member)
    code = consent(project)["code"][0]
    Membership.objects.all().delete()
    answer = exchange(
        grant_type="authorization_code",
        code=code,
        redirect_uri=REDIRECT,
        code_verifier=VERIFIER,
    )
    assert answer.status_code == 400
    assert not OAuthAccessToken.objects.exists()


def test_the_page_offers_the_users_own_projects(
    client, member, project, sibling, foreign_project, request_of
):
    client.force_login(member)
    page = client.get(request_of()).content.decode()
    assert "Acme / Main" in page
    assert "Acme / Sibling" in page
    assert "Theirs" not in page


def test_a_strangers_project_cannot_be_chosen(client, member, foreign_project, consent, request_of):
    client.force_login(member)
    assert consent(foreign_project)["Location"] == request_of()
    assert not OAuthGrant.objects.exists()


def test_allowing_requires_a_project(client, member, project, sibling, consent, request_of):
    client.force_login(member)
    assert consent(None)["Location"] == request_of()
    assert not OAuthGrant.objects.exists()


def test_refusing_requires_no_project_and_informs_the_client(client, member, project, consent):
    client.force_login(member)
    answer = consent(None, allow="")
    assert answer["error"] == ["access_denied"]
    assert answer["state"] == ["xyz"]


@pytest.mark.parametrize("changes", [{"approval_prompt": "auto"}, {"chosen_project": "1"}])
def test_a_client_cannot_skip_the_choice(client, tokens, request_of, changes):
    page = client.get(request_of(**changes))
    assert page.status_code == 200
    assert b"Choose a project" in page.content


def test_a_client_that_skips_authorization_gets_no_code(client, member, project, request_of):
    client.force_login(member)
    OAuthApplication.objects.update(skip_authorization=True)
    answer = client.get(request_of(chosen_project=str(project.pk)))
    assert not OAuthGrant.objects.exists()
    assert "error=invalid_request" in answer["Location"]


def test_a_project_parameter_does_not_replace_the_users_choice(project):
    """oauthlib returns the request parameter of that name for an unknown attribute."""
    request = Request(f"https://example.com/oauth/authorize/?chosen_project={project.pk}")
    assert request.chosen_project == str(project.pk)
    with pytest.raises(InvalidRequestError):
        ProjectBoundValidator().save_authorization_code("client", {"code": "c"}, request)


@pytest.mark.parametrize(
    "changes",
    [
        {"code_challenge": None},
        {"response_type": "token"},
        {"scope": "project:write"},
    ],
    ids=["no PKCE", "implicit", "unknown scope"],
)
def test_what_the_protocol_forbids_is_refused_to_the_client(client, member, request_of, changes):
    client.force_login(member)
    answer = client.get(request_of(**changes))
    assert answer.status_code == 302
    assert "error=" in answer["Location"]


def test_plain_pkce_is_refused(client, member, project, consent):
    client.force_login(member)
    answer = consent(project, code_challenge_method="plain")
    assert "invalid_request" in str(answer)
    assert not OAuthGrant.objects.exists()


@pytest.mark.parametrize(
    "redirect_uri",
    ["https://evil.example.com/callback", "http://127.0.0.1@evil.example.com/callback"],
)
def test_users_are_not_redirected_to_an_unregistered_address(
    client, member, request_of, redirect_uri
):
    client.force_login(member)
    answer = client.get(request_of(redirect_uri=redirect_uri))
    assert answer.status_code == 400
    assert "Location" not in answer


def test_a_tampered_form_cannot_change_the_redirect(client, member, project, consent):
    client.force_login(member)
    answer = consent(project, redirect_uri="https://evil.example.com/callback")
    assert answer.status_code == 400


def test_the_wrong_verifier_gets_nothing(client, member, project, consent, exchange):
    client.force_login(member)
    code = consent(project)["code"][0]
    answer = exchange(
        grant_type="authorization_code",
        code=code,
        redirect_uri=REDIRECT,
        code_verifier="w" * 64,
    )
    assert answer.status_code == 400


DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
OTHER_GRANTS = [
    *("password", "client_credentials", "implicit", "nonsense", "", DEVICE),
    *("urn:ietf:params:oauth:grant-type:jwt-bearer", "AUTHORIZATION_CODE", "refresh_token "),
]


@pytest.mark.parametrize("more", [{}, {"device_code": "d"}, {"code": "c", "refresh_token": "r"}])
@pytest.mark.parametrize("grant_type", OTHER_GRANTS)
def test_other_grants_are_refused(exchange, member, project, grant_type, more):
    answer = exchange(
        grant_type=grant_type,
        username="ada",
        password="a long password",
        chosen_project=str(project.pk),
        **more,
    )
    assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_grant_type")
    assert not OAuthAccessToken.objects.exists()


@pytest.mark.parametrize(
    "path", ["device-authorization", "device", "register", "applications", "userinfo", "logout"]
)
def test_other_endpoints_of_the_toolkit_are_not_served(admin_client, path):
    assert admin_client.get(f"/oauth/{path}/").status_code == 404
    assert admin_client.post(f"/oauth/{path}/").status_code == 404


class TestMetadata:
    PATH = "/.well-known/oauth-authorization-server"

    def test_it_lists_the_endpoints(self, client, settings):
        settings.PUBLIC_URL = "https://tollgate.example.com"
        answer = client.get(self.PATH)
        assert answer["Content-Type"] == "application/json"
        metadata = answer.json()
        assert metadata["issuer"] == "https://tollgate.example.com"
        for name in ("authorization", "token", "revocation", "introspection"):
            address = metadata[f"{name}_endpoint"]
            assert address.startswith(metadata["issuer"] + "/oauth/")
            path = address.removeprefix(metadata["issuer"])
            assert client.post(path).status_code in (302, 400, 401), name

    def test_it_matches_what_is_accepted(self, client, member, request_of, exchange):
        metadata = client.get(self.PATH).json()
        client.force_login(member)
        for scope in metadata["scopes_supported"]:
            assert client.get(request_of(scope=scope)).status_code == 200
        refused = client.get(request_of(response_type="token"))["Location"]
        assert "error=unsupported_response_type" in refused
        assert f"iss={quote(metadata['issuer'], safe='')}" in refused
        assert metadata["response_types_supported"] == ["code"]
        for grant in metadata["grant_types_supported"]:
            assert exchange(grant_type=grant).json()["error"] != "unsupported_grant_type"
        assert metadata["code_challenge_methods_supported"] == ["S256"]

    @pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
    def test_a_client_with_a_secret_authenticates_as_it_says(self, client, method):
        secret = "a secret that is long enough"
        confidential = OAuthApplication.objects.create(
            client_type="confidential", client_secret=secret, redirect_uris=REDIRECT
        )
        assert method in client.get(self.PATH).json()["token_endpoint_auth_methods_supported"]
        pair = f"{confidential.client_id}:{secret}".encode()
        form, headers = {"grant_type": "refresh_token", "refresh_token": "r"}, {}
        if method == "client_secret_basic":
            headers = {"authorization": f"Basic {base64.b64encode(pair).decode()}"}
        else:
            form |= {"client_id": confidential.client_id, "client_secret": secret}
        answer = client.post("/oauth/token/", form, headers=headers)
        assert answer.json()["error"] == "invalid_grant"

    def test_it_is_read_only(self, client):
        assert client.post(self.PATH).status_code == 405
        assert client.head(self.PATH).status_code == 200
        assert client.get(self.PATH)["Access-Control-Allow-Origin"] == "*"


def test_an_anonymous_user_logs_in_and_returns_to_the_page(client, member, request_of):
    answer = client.get(request_of())
    assert answer.status_code == 302
    login = answer["Location"]
    assert login.startswith("/login/?next=/oauth/authorize/")
    page = client.get(login).content.decode()
    following = re.search(r'name="next" value="([^"]*)"', page).group(1).replace("&amp;", "&")
    answer = client.post(
        "/login/", {"username": "ada", "password": "a long password", "next": following}
    )
    assert answer["Location"].startswith("/oauth/authorize/?response_type=code")


def test_logging_in_does_not_redirect_to_other_sites(client, member):
    answer = client.post(
        "/login/",
        {"username": "ada", "password": "a long password", "next": "https://evil.example.com/"},
    )
    assert answer["Location"] == "/admin/"


def test_consent_needs_a_csrf_token(member, project, request_of):
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(member)
    assert browser.post(request_of(), {"allow": "true"}).status_code == 403


@pytest.mark.parametrize("path", ["/oauth/token/", "/oauth/revoke_token/"])
def test_a_desktop_client_needs_no_csrf_token(desktop, path):
    answer = Client(enforce_csrf_checks=True).post(
        path, {"client_id": desktop.client_id, "token": "t", "grant_type": "refresh_token"}
    )
    assert answer.status_code in (200, 400)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("authorization_grant_type", "password"),
        ("redirect_uris", "http://example.com/callback"),
        ("redirect_uris", "http://127.0.0.1.evil.example.com/callback"),
        ("redirect_uris", "http://127.0.0.1:pw@evil.example.com/callback"),
        ("skip_authorization", True),
    ],
)
def test_an_unsafe_client_cannot_be_registered(desktop, field, value):
    setattr(desktop, field, value)
    with pytest.raises(ValidationError) as refused:
        desktop.full_clean()
    assert field in refused.value.message_dict


def test_a_deleted_project_takes_its_codes_along(client, member, sibling, project, consent):
    client.force_login(member)
    consent(sibling)
    Project.objects.filter(pk=sibling.pk).delete()
    assert not OAuthGrant.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("grant_type", ["authorization_code", "refresh_token"])
def test_only_one_of_several_concurrent_uses_of_a_grant_succeeds(
    client, member, project, consent, exchange, desktop, grant_type
):
    client.force_login(member)
    code = {
        "grant_type": "authorization_code",
        "code": consent(project)["code"][0],
        "redirect_uri": REDIRECT,
        "code_verifier": VERIFIER,
    }
    form = code
    if grant_type == "refresh_token":
        form = {"grant_type": grant_type, "refresh_token": exchange(**code).json()["refresh_token"]}
    together = threading.Barrier(4)

    def use(_number):
        try:
            together.wait(60)
            answer = Client().post("/oauth/token/", {"client_id": desktop.client_id} | form)
            return answer.status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        statuses = sorted(pool.map(use, range(4)))

    assert statuses == [200, 400, 400, 400]
    # Three requests reused the grant, so its tokens are revoked and the gateway is informed.
    assert not OAuthAccessToken.objects.exists()
    assert not OAuthRefreshToken.objects.filter(revoked=None).exists()
    assert Change.objects.count() == (1 if grant_type == "authorization_code" else 2)
