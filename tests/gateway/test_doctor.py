"""`python -m gateway.doctor` says what is wrong with what the gateway needs."""

import asyncio
import json
from contextlib import contextmanager

import msgspec
import pytest

from gateway import doctor, keys
from gateway.settings import from_environment
from tests.gateway.conftest import World
from tests.gateway.fake_provider import json_script


@pytest.fixture
def environment(fragile: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The environment of a gateway whose Redis, Django and provider may fail.

    Other tests of the same gateway may have left events aside.
    """
    fragile.redis.delete(keys.SET_ASIDE)
    for name, value in fragile.process._program.environment.items():
        monkeypatch.setenv(name, value)
    return fragile


def examined() -> dict[str, doctor.Finding]:
    return {one.check: one for one in asyncio.run(doctor.findings(from_environment()))}


def levels() -> dict[str, str]:
    return {name: one.level for name, one in examined().items() if one.level != "ok"}


@contextmanager
def configured(world: World, **settings: str):
    before = {name: world.redis.config_get(name)[name] for name in settings}
    for name, value in settings.items():
        world.redis.config_set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            world.redis.config_set(name, value)


def test_everything_is_well(environment: World) -> None:
    with configured(environment, appendfsync="always"):
        found = examined()
    assert {one.level for one in found.values()} == {"ok"}
    assert found["provider anthropic"].message == "it answers, and takes our key"
    assert found["gateway data"].message.startswith("every event is on disk")


def test_a_redis_that_would_lose_money_is_an_error(environment: World) -> None:
    settings = {"maxmemory-policy": "allkeys-lru", "appendfsync": "everysec"}
    with configured(environment, **settings):
        assert levels() == {"gateway memory": "error", "gateway data": "warning"}
    with configured(environment, appendonly="no"):
        assert levels() == {"gateway data": "error"}


def test_events_that_were_set_aside_are_a_warning(environment: World) -> None:
    environment.redis.xadd(keys.SET_ASIDE, {"event": "{}"})
    try:
        assert levels().get("gateway aside") == "warning"
    finally:
        environment.redis.delete(keys.SET_ASIDE)


def test_an_old_event_is_an_error() -> None:
    class Redis:
        async def execute(self, command: str, *_: object) -> object:
            return 3 if command == "XLEN" else [[b"1000-0", []]]

    found = asyncio.run(doctor._events(Redis()))
    assert found.level == "error"
    assert found.message.startswith("3 wait for billing")


def test_a_dead_redis_stops_no_other_check(environment: World, monkeypatch) -> None:
    monkeypatch.setenv("GATEWAY_REDIS_URL", "redis://:the-password@127.0.0.1:1/0")
    found = examined()
    assert found["gateway redis"].level == "error"
    assert found["gateway django"].level == "ok"
    assert "the-password" not in repr(found)


@pytest.mark.parametrize(("status", "word"), [(401, "refuses"), (503, "does not answer")])
def test_django_that_refuses_is_distinguished_from_django_that_is_down(
    environment: World, status: int, word: str
) -> None:
    environment.tollgate.fail("changes", status)
    try:
        found = examined()["gateway django"]
    finally:
        environment.tollgate.mend("changes")
    assert found.level == "error"
    assert word in found.message


@pytest.mark.parametrize(("status", "level"), [(401, "error"), (500, "warning"), (404, "ok")])
def test_a_provider_that_refuses_the_key_is_an_error(
    environment: World, status: int, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment.provider, "script", lambda _seen: json_script({}, status))
    found = examined()
    assert found["provider anthropic"].level == found["provider openai"].level == level
    assert "sk-" not in repr(found)


def test_a_provider_that_is_not_there_is_an_error(environment: World, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_UPSTREAM_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "")
    found = examined()
    assert found["provider openai"].level == "error"
    assert found["provider anthropic"].message == "it has no key here, so it was not asked"


def test_the_exit_status_says_whether_there_is_an_error(
    environment: World, monkeypatch, capsys
) -> None:
    assert doctor.main(["--json"]) == 0
    found = msgspec.json.decode(capsys.readouterr().out)
    assert {"check", "level", "message", "do"} == found[0].keys()
    monkeypatch.setenv("TOLLGATE_URL", "http://127.0.0.1:1")
    assert doctor.main([]) == 1
    assert "→ Start Django" in capsys.readouterr().out
    monkeypatch.setenv("GATEWAY_BODY_BUDGET", "1")
    assert doctor.main(["--json"]) == 2
    with pytest.raises(json.JSONDecodeError):
        json.loads(capsys.readouterr().out)
