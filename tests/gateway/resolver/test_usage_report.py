"""`GET /v1/usage/<product>`: what is left."""

import pytest

from tests.gateway.conftest import World


def test_the_usage_endpoint_shows_what_is_left(world: World) -> None:
    project = world.tollgate.project(credits=100)
    token = world.tollgate.token(project)
    world.post(token)
    world.booked(project)
    page = world.get("/v1/usage/slack_app", token).json()
    assert page["limited"] is False
    assert (page["usage"], page["limit"]) == (0.072, 100)
    assert page["remaining"] == pytest.approx(99.928)
    assert page["held"] == 0
