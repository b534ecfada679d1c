"""Bot tokens that expire: when one is due, who renews it, and what replaces it.

Slack's refresh tokens work once, so exactly one process may use each. It claims the row by moving
its date. If the process dies, the row is due again a minute later.
"""

from datetime import datetime, timedelta

from django.db import transaction

from projects.models import RotatingToken, SlackWorkspace

REFRESH_BEFORE = timedelta(hours=2)
"""How long before its expiry a token is renewed. Slack's tokens live for twelve hours."""
LEASE = timedelta(minutes=1)
_USABLE = 0.5
"""A token that lives less than four hours is renewed after half of its life."""


def keep(
    workspace: SlackWorkspace, refresh_token: str, expires_in: timedelta, now: datetime
) -> None:
    """Store how the workspace's token is renewed. Without a refresh token, it doesn't expire."""
    if not refresh_token:
        RotatingToken.objects.filter(workspace=workspace).delete()
        return
    RotatingToken.objects.update_or_create(
        workspace=workspace,
        defaults={
            "refresh_token": refresh_token,
            "expires_at": now + expires_in,
            "refresh_at": now + _refresh_after(expires_in),
            "problem": "",
        },
    )


def due(now: datetime) -> list[RotatingToken]:
    """Return the tokens to renew, sorted by expiry."""
    tokens = RotatingToken.objects.filter(workspace__is_active=True, refresh_at__lte=now)
    return list(tokens.defer("refresh_token").order_by("expires_at"))


def claim(token: RotatingToken, now: datetime) -> datetime | None:
    """Return the lease for renewing the token, or None if another process has one."""
    lease = now + LEASE
    mine = RotatingToken.objects.filter(pk=token.pk, refresh_at=token.refresh_at)
    return lease if mine.update(refresh_at=lease) else None


def replace(
    token: RotatingToken,
    lease: datetime,
    bot_token: str,
    refresh_token: str,
    expires_in: timedelta,
    now: datetime,
) -> bool:
    """Store what Slack gave for the refresh token. Return False if the lease was lost.

    It is lost if the app was installed again meanwhile, which gave newer tokens.
    """
    with transaction.atomic():
        # The workspace is locked first, as by an installation. A deadlock could lose the new token.
        SlackWorkspace.objects.select_for_update().filter(pk=token.workspace_id).first()
        held = RotatingToken.objects.select_for_update().filter(pk=token.pk, refresh_at=lease)
        if held.first() is None:
            return False
        SlackWorkspace.objects.filter(pk=token.workspace_id).update(bot_token=bot_token)
        keep(SlackWorkspace(pk=token.workspace_id), refresh_token, expires_in, now)
    return True


def postpone(
    token: RotatingToken, lease: datetime, problem: str, next_attempt: datetime | None
) -> None:
    """Record why the token was not renewed. Without a next attempt, nobody tries again."""
    held = RotatingToken.objects.filter(pk=token.pk, refresh_at=lease)
    held.update(problem=problem[:100], refresh_at=next_attempt)


def note_expired(workspace_id: int, bot_token: str, now: datetime) -> bool:
    """Make the token due, because Slack says that it has expired. Return whether that changed it.

    Nothing changes if the caller's token is an older one, or if the token is being renewed.
    """
    workspace = SlackWorkspace.objects.filter(pk=workspace_id).first()
    if workspace is None or workspace.bot_token != bot_token:
        return False
    waiting = RotatingToken.objects.filter(workspace=workspace_id, refresh_at__gt=now + LEASE)
    return bool(waiting.update(refresh_at=now))


def _refresh_after(expires_in: timedelta) -> timedelta:
    return max(expires_in - REFRESH_BEFORE, expires_in * _USABLE)
