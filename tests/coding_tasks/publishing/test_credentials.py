"""Credentials are encrypted at rest, shown to nobody, and belong to one project."""

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import connection

from coding_tasks.models import GitCredential
from coding_tasks.models.git_credentials import validate_api_url
from projects.models import Project
from tests.git_server import TOKEN

pytestmark = pytest.mark.django_db
LIST = "/admin/coding_tasks/gitcredential/"


def stored() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM coding_tasks_gitcredential")
        return str(cursor.fetchone()[0])


def form(project, **fields) -> dict[str, object]:
    return {
        "project": project.pk,
        "name": "bot",
        "kind": "token",
        "username": "x-access-token",
        "new_secret": TOKEN,
    } | fields


def test_the_admin_takes_a_secret_and_never_shows_it_again(admin_client, project):
    added = admin_client.post(f"{LIST}add/", form(project))
    assert added.status_code == 302
    credential = GitCredential.objects.get()
    assert credential.secret == TOKEN
    assert TOKEN not in stored()
    for page in (LIST, f"{LIST}{credential.pk}/change/", f"{LIST}{credential.pk}/history/"):
        shown = admin_client.get(page).content.decode()
        assert TOKEN not in shown
        assert stored() not in shown
    admin_client.post(f"{LIST}{credential.pk}/change/", form(project, name="new", new_secret=""))
    credential.refresh_from_db()
    assert (credential.name, credential.secret) == ("new", TOKEN)
    admin_client.post(f"{LIST}{credential.pk}/change/", form(project, new_secret="replaced"))
    credential.refresh_from_db()
    assert credential.secret == "replaced"


@pytest.mark.parametrize(
    "fields",
    [
        {"new_secret": ""},
        {"kind": "github_app"},
        {"kind": "github_app", "app_id": "1", "installation_id": ""},
        {"api_url": "http://github.example.com/api/v3"},
        {"api_url": "ftp://github.example.com"},
    ],
)
def test_an_incomplete_credential_is_refused(admin_client, project, fields):
    assert admin_client.post(f"{LIST}add/", form(project, **fields)).status_code == 200
    assert not GitCredential.objects.exists()


def test_the_workers_own_keys_need_no_secret(admin_client, project):
    admin_client.post(f"{LIST}add/", form(project, kind="ssh", new_secret=""))
    credential = GitCredential.objects.get()
    assert credential.secret == ""
    page = f"{LIST}{credential.pk}/change/"
    assert admin_client.post(page, form(project, new_secret="")).status_code == 200
    credential.refresh_from_db()
    assert credential.kind == "ssh"


def test_a_repository_takes_credentials_of_its_own_project_only(project, repository):
    other = Project.objects.create(organization=project.organization, name="Other")
    repository.credential = GitCredential.objects.create(project=other, name="x", secret="y")
    with pytest.raises(ValidationError, match="another project"):
        repository.full_clean()
    repository.credential = GitCredential.objects.create(project=project, name="x", secret="y")
    repository.full_clean()


def test_a_credential_in_use_is_not_deleted(admin_client, project, repository):
    repository.credential = GitCredential.objects.create(project=project, name="x", secret="y")
    repository.save()
    admin_client.post(f"{LIST}{repository.credential.pk}/delete/", {"post": "yes"})
    assert GitCredential.objects.exists()
    project.delete()
    assert not GitCredential.objects.exists()


def test_after_reencryption_the_old_secret_key_is_not_needed(project, settings):
    GitCredential.objects.create(project=project, name="x", secret="y")
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "a new key that is long enough to be one, and of no value at all"
    call_command("reencrypt_secrets")
    settings.SECRET_KEY_FALLBACKS = []
    assert GitCredential.objects.get().secret == "y"


def test_pages_of_repositories_need_no_secret(admin_client, project, repository, settings):
    repository.credential = GitCredential.objects.create(project=project, name="deploy", secret="y")
    repository.save()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE coding_tasks_gitcredential SET secret = 'of a lost key'")
    listed = admin_client.get("/admin/coding_tasks/repository/")
    assert "deploy" in listed.content.decode()
    page = admin_client.get(f"/admin/coding_tasks/repository/{repository.pk}/change/")
    assert page.status_code == 200
    assert admin_client.get(LIST).status_code == 200


def test_a_token_is_sent_to_safe_addresses_only():
    validate_api_url("https://github.example.com/api/v3")
    validate_api_url("http://127.0.0.1:8000/api/v3")
    with pytest.raises(ValidationError):
        validate_api_url("http://github.example.com/api/v3")
