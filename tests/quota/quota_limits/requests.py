"""Asking the quota endpoint, and reading its answers."""

from datetime import datetime

from quota.resources import AI_CREDITS

SERVICE = {"authorization": "Bearer service-token-of-the-test-suite"}


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def path(project_id: object) -> str:
    return f"/api/projects/{project_id}/quota_limits/"


def ai_credits(response) -> dict:
    assert response.status_code == 200, response.content
    return response.json()["limited"][AI_CREDITS]


def epoch(instant: datetime) -> int:
    return int(instant.timestamp())
