"""Clone URLs that git may and may not be given."""

import pytest
from django.core.exceptions import ValidationError

from coding_tasks.models import Repository
from coding_tasks.repositories.clone_urls import UnsafeCloneURL, protocol_of


@pytest.mark.parametrize(
    ("url", "protocol"),
    [
        ("https://github.com/acme/shop.git", "https"),
        ("https://git.example.com:8443/acme/shop", "https"),
        ("HTTPS://github.com/acme/shop", "https"),
        ("ssh://git@github.com/acme/shop.git", "ssh"),
        ("git@github.com:acme/shop.git", "ssh"),
        ("github.com:acme/shop.git", "ssh"),
        ("file:///srv/git/shop.git", "file"),
        ("/srv/git/shop.git", "file"),
    ],
)
def test_a_plain_address_of_an_allowed_protocol_is_taken(url, protocol):
    assert protocol_of(url) == protocol


@pytest.mark.parametrize(
    "url",
    [
        "",
        "shop",
        "../shop",
        "ext::sh -c touch% /tmp/owned",
        "ext::touch",
        "fd::17",
        "--upload-pack=touch",
        "-u",
        "ssh://-oProxyCommand=touch/shop",
        "ssh://-o@host/shop",
        "-oProxyCommand=touch:shop",
        "git@-oProxyCommand=touch:shop",
        "https://token@github.com/acme/shop",
        "https://user:password@github.com/acme/shop",
        "ssh://git:password@github.com/acme/shop",
        "https://github.com/acme/shop?access_token=secret",
        "https://github.com/acme/shop#secret",
        "https:///acme/shop",
        "https://[github.com/acme/shop",
        "https://github.com/acme/shop\n--upload-pack=touch",
        "https://github.com/acme/a shop",
        "https://github.com\\acme",
        "\x00",
        "http://github.com/acme/shop",
        "git://github.com/acme/shop",
        "ftp://github.com/acme/shop",
    ],
)
def test_any_other_address_is_refused(url):
    with pytest.raises(UnsafeCloneURL):
        protocol_of(url)


def test_a_local_path_is_refused_where_files_are_not_allowed(settings):
    settings.GIT_ALLOWED_PROTOCOLS = ["https", "ssh"]
    for url in ("/srv/git/shop.git", "file:///srv/git/shop.git"):
        with pytest.raises(UnsafeCloneURL):
            protocol_of(url)


def test_the_refusal_does_not_repeat_the_secret():
    with pytest.raises(UnsafeCloneURL) as refused:
        protocol_of("https://user:hunter2@github.com/acme/shop")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("full_name", "clone_url"),
    [("acme/shop", "ext::sh"), ("shop", "https://github.com/acme/shop"), ("-a/b", "https://h/x")],
)
def test_the_admin_refuses_such_a_repository(full_name, clone_url):
    with pytest.raises(ValidationError):
        Repository(full_name=full_name, clone_url=clone_url).clean_fields(exclude=["project"])
