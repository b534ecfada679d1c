"""A client that tries to log in too often has to wait, and nobody else does."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from django.test import Client, RequestFactory
from django.urls import reverse

from projects.models import User
from projects.oauth import log_in_throttle
from projects.oauth.log_in_throttle import ATTEMPTS, ATTEMPTS_OF_AN_ADDRESS, WINDOW, client_network
from projects.redis_connection import redis_connection

ADMIN = reverse("admin:login")
DOORS = [ADMIN, reverse("login")]
PASSWORD = "a long password"


@pytest.fixture
def administrator(db, redis_client) -> User:
    return User.objects.create_superuser("ada", "ada@example.com", PASSWORD)


def try_to_log_in(client: Client, password="wrong", name="ada", page=ADMIN, **meta):
    return client.post(page, {"username": name, "password": password}, **meta)


def be_held_back(client: Client, **attempt) -> None:
    for _ in range(ATTEMPTS):
        assert try_to_log_in(client, **attempt).status_code == 200
    assert try_to_log_in(client, **attempt).status_code == 429


@pytest.mark.parametrize("page", DOORS)
def test_after_too_many_attempts_even_the_right_password_waits(client, administrator, page):
    be_held_back(client, page=page)
    answer = try_to_log_in(client, PASSWORD, page=page)
    assert answer.status_code == 429
    assert 0 < int(answer["Retry-After"]) <= WINDOW
    assert "Too many attempts" in answer.content.decode()
    assert "_auth_user_id" not in client.session


def test_both_log_in_pages_share_one_count(client, administrator):
    be_held_back(client, page=DOORS[0])
    assert try_to_log_in(client, PASSWORD, page=DOORS[1]).status_code == 429


def test_a_user_can_try_again_after_waiting(client, administrator, redis_client):
    be_held_back(client)
    for key in redis_client.keys("tollgate:log-in:*"):
        assert 0 < redis_client.ttl(key) <= WINDOW
        redis_client.expire(key, 0)
    assert try_to_log_in(client, PASSWORD).status_code == 302


def test_attempts_while_waiting_do_not_prolong_it(client, administrator, redis_client):
    be_held_back(client)
    for key in redis_client.keys("tollgate:log-in:*"):
        redis_client.expire(key, 30)
    assert int(try_to_log_in(client)["Retry-After"]) <= 30


def test_another_address_and_another_user_are_not_held_back(client, administrator):
    be_held_back(client)
    User.objects.create_superuser("grace", "grace@example.com", PASSWORD)
    assert try_to_log_in(client, PASSWORD, "grace").status_code == 302
    assert try_to_log_in(Client(), PASSWORD, REMOTE_ADDR="192.0.2.7").status_code == 302


SPELLINGS = [
    *("ADA", " ada", "ada ", "\tada\n", "\u3000ada", "\xa0ada\u2028", "\x1fada"),
    *("\uff41\uff44\uff41", "\uff21\uff24\uff21", "\u1d43da", "\U0001d41a\U0001d41d\U0001d41a"),
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_other_spellings_of_a_user_name_count_as_the_same(client, administrator, spelling):
    be_held_back(client)
    assert try_to_log_in(client, PASSWORD, spelling).status_code == 429


def test_all_spellings_together_are_five_attempts(client, administrator):
    attempts = [try_to_log_in(client, name=spelling).status_code for spelling in SPELLINGS]
    assert attempts == [200] * ATTEMPTS + [429] * (len(SPELLINGS) - ATTEMPTS)


@pytest.mark.parametrize("page", DOORS)
def test_every_name_that_logs_a_user_in_counts_as_theirs(client, administrator, page, redis_client):
    """The throttle reads a name like the form and the database."""
    for spelling in [*SPELLINGS, "ada\u200b", "a\u0308da", "\u0430da", "ada\0", "ada" + " " * 200]:
        redis_client.flushdb()
        logs_in = try_to_log_in(Client(), PASSWORD, spelling, page=page).status_code == 302
        assert not logs_in or log_in_throttle.user_named(spelling) == "ada"


@pytest.mark.parametrize("name", ["", "ada\0", "a" * 151, " " * 5])
def test_names_that_the_form_rejects_do_not_throttle_others(client, administrator, name):
    for _ in range(ATTEMPTS + 1):
        answer = try_to_log_in(client, PASSWORD, name)
    assert answer.status_code == 429
    assert try_to_log_in(client, PASSWORD).status_code == 302


def test_success_clears_earlier_failed_attempts(client, administrator):
    for _ in range(3):
        for _ in range(ATTEMPTS - 1):
            assert try_to_log_in(client).status_code == 200
        assert try_to_log_in(client, PASSWORD).status_code == 302


def test_being_logged_in_does_not_help_guessing(client, administrator):
    User.objects.create_user("mallory", "", PASSWORD)
    client.force_login(User.objects.get(username="mallory"))
    be_held_back(client)


def test_an_address_that_tries_many_names_waits(client, administrator):
    counted = redis_connection()
    try_to_log_in(client, name="first")
    for key in counted.keys("tollgate:log-in:*"):
        counted.incrby(key, ATTEMPTS_OF_AN_ADDRESS - 1)
    assert try_to_log_in(client, PASSWORD).status_code == 429
    assert try_to_log_in(Client(), PASSWORD, REMOTE_ADDR="192.0.2.7").status_code == 302


def test_many_attempts_at_once_are_no_more_than_many_in_a_row(redis_client):
    with ThreadPoolExecutor(8) as pool:
        waits = list(pool.map(lambda _: log_in_throttle.attempt("ada", "192.0.2.7"), range(40)))
    assert waits.count(0) == ATTEMPTS


def test_without_redis_only_the_password_decides(client, administrator, settings):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    redis_connection.cache_clear()
    try:
        with pytest.raises(redis.RedisError):
            redis_connection().ping()
        for _ in range(ATTEMPTS + 1):
            assert try_to_log_in(client).status_code == 200
        assert try_to_log_in(client, PASSWORD).status_code == 302
    finally:
        redis_connection.cache_clear()


def test_names_and_addresses_are_not_stored(client, administrator, redis_client):
    try_to_log_in(client)
    keys = redis_client.keys("tollgate:log-in:*")
    assert len(keys) == 2
    assert not [key for key in keys if "ada" in key or "127.0.0.1" in key]


@pytest.mark.parametrize(
    ("proxies", "forwarded", "peer", "network"),
    [
        (0, None, "192.0.2.1", "192.0.2.1"),
        (0, "203.0.113.9", "192.0.2.1", "192.0.2.1"),
        (1, None, "192.0.2.1", "192.0.2.1"),
        (1, "203.0.113.9", "192.0.2.1", "203.0.113.9"),
        (1, "1.2.3.4, 203.0.113.9", "192.0.2.1", "203.0.113.9"),
        (2, "1.2.3.4, 203.0.113.9, 10.0.0.1", "192.0.2.1", "203.0.113.9"),
        (1, "203.0.113.9:51234", "192.0.2.1", "203.0.113.9"),
        (1, "[2001:db8:1:2::3]:51234", "192.0.2.1", "2001:db8:1:2::/64"),
        (1, "2001:db8:1:2:ffff::3", "192.0.2.1", "2001:db8:1:2::/64"),
        (1, "::ffff:203.0.113.9", "192.0.2.1", "203.0.113.9"),
        (1, "::FFFF:cb00:7109", "192.0.2.1", "203.0.113.9"),
        (1, "[::ffff:203.0.113.9]:51234", "192.0.2.1", "203.0.113.9"),
        (1, "2002:cb00:7109:1234::1", "192.0.2.1", "203.0.113.9"),
        (1, "64:ff9b::203.0.113.9", "192.0.2.1", "203.0.113.9"),
        (1, "fe80::1%eth0", "192.0.2.1", "fe80::/64"),
        (1, "2001:DB8:0001:2::3", "192.0.2.1", "2001:db8:1:2::/64"),
        (1, "unknown", "192.0.2.1", "192.0.2.1"),
        (1, "", "192.0.2.1", "192.0.2.1"),
        (1, "[", "", ""),
    ],
)
def test_only_addresses_from_our_own_proxies_are_trusted(
    settings, proxies, forwarded, peer, network
):
    settings.REST_FRAMEWORK = settings.REST_FRAMEWORK | {"NUM_PROXIES": proxies}
    headers = {} if forwarded is None else {"HTTP_X_FORWARDED_FOR": forwarded}
    assert client_network(RequestFactory(REMOTE_ADDR=peer, **headers).get("/")) == network
