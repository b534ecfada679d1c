"""An application that follows `docs/desktop-clients.md` can sign in and out."""

import base64
import hashlib
import re
import secrets
import shlex
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from django.conf import settings

from billing import organizations
from projects.authentication import introspection
from projects.models import Change, OAuthApplication, User

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "desktop-clients.md").read_text()
TOLLGATE = "http://localhost:8000"
ASK, EXCHANGE, CALL, REFRESH, REVOKE = (
    block.strip() for block in re.findall(r"^```\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
)


def filled(example, values):
    """Replace the page's placeholders by values."""
    for name, value in values.items():
        example = example.replace(f"<{name}>", value)
    assert "<" not in example, example
    return example


def post(client, example, **values):
    """Send the request of one of the page's `curl` commands."""
    program, address, *words = shlex.split(filled(example, values))
    assert program == "curl"
    assert words[::2] == ["-d"] * (len(words) // 2)
    form = dict(word.split("=", 1) for word in words[1::2])
    return client.post(address.removeprefix(TOLLGATE), form)


@pytest.mark.django_db
def test_an_application_can_sign_in_refresh_and_sign_out(admin_client, client, redis_client):
    project = organizations.create_project(organizations.create_organization("Acme"), "Main")
    ada = User.objects.create_user("ada", password="a long password")
    project.organization.members.add(ada)
    form = {
        "name": "Desktop",
        "client_type": "public",
        "redirect_uris": "http://127.0.0.1/callback",
    }
    add = "/admin/projects/oauthapplication/add/"
    initial = admin_client.get(add).context["adminform"].form
    form |= {"client_id": initial["client_id"].value(), "client_secret": ""}
    assert admin_client.post(add, form).status_code == 302
    known = {"client id": OAuthApplication.objects.get().client_id, "port": "49152"}

    told = client.get("/.well-known/oauth-authorization-server").json()
    assert ASK.startswith(f"{TOLLGATE}{urlsplit(told['authorization_endpoint']).path}?")
    for example, endpoint in ((EXCHANGE, "token"), (REFRESH, "token"), (REVOKE, "revocation")):
        assert f"{TOLLGATE}{urlsplit(told[endpoint + '_endpoint']).path} " in example

    verifier = secrets.token_urlsafe(48)
    digest = hashlib.sha256(verifier.encode()).digest()
    challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    asked = filled(ASK, known | {"challenge": challenge, "state": "xyz"}).removeprefix(TOLLGATE)
    client.force_login(ada)
    assert b"Acme / Main" in client.get(asked).content
    allowed = dict(parse_qsl(urlsplit(asked).query)) | {"allow": "true", "project": project.pk}
    back = client.post(asked, allowed)["Location"]
    assert back.startswith("http://127.0.0.1:49152/callback?")
    answer = {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}
    assert (answer["state"], answer["iss"]) == ("xyz", told["issuer"])
    client.logout()

    pair = post(client, EXCHANGE, **known, code=answer["code"], verifier=verifier).json()
    found = introspection.find(pair["access_token"])
    assert found.project_ids == {project.pk}
    assert "llm_gateway:read" in found.scopes
    assert "/posthog_code/v1/messages" in filled(CALL, {"access token": pair["access_token"]})

    refreshed = post(client, REFRESH, **known, **{"refresh token": pair["refresh_token"]}).json()
    assert introspection.find(pair["access_token"]) is None
    assert introspection.find(refreshed["access_token"]).project_ids == {project.pk}

    out = post(client, REVOKE, **known, **{"refresh token": refreshed["refresh_token"]})
    assert out.status_code == 200
    assert introspection.find(refreshed["access_token"]) is None
    assert Change.objects.filter(kind=Change.Kind.CREDENTIAL_REVOKED).count() == 2


def test_the_page_states_the_lifetimes_of_tokens():
    lives = settings.OAUTH2_PROVIDER
    assert lives["ACCESS_TOKEN_EXPIRE_SECONDS"] == 10 * 3600
    assert lives["REFRESH_TOKEN_EXPIRE_SECONDS"] == 30 * 24 * 3600
    assert "`pha_…`, 10 hours" in PAGE
    assert "`phr_…`, 30 days" in PAGE
