"""The app's installations: the team of each bot token, and how a new token is issued."""

import sqlite3
import uuid
from dataclasses import dataclass

from devstack.demo_slack.database import Database


@dataclass(frozen=True)
class Install:
    """An installation of the app in a team."""

    token: str
    team_id: str
    app_id: str
    bot_user_id: str
    bot_id: str
    active: bool


class Installations:
    """Bot tokens, and the authorization codes that are exchanged for them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, team_id: str, token: str, app_id: str, bot_user_id: str, bot_id: str) -> None:
        """Install the app in the team with this bot token."""
        with self._database.change() as connection:
            connection.execute(
                "REPLACE INTO installs VALUES (?, ?, ?, ?, ?, 1)",
                (token, team_id, app_id, bot_user_id, bot_id),
            )

    def install(self, team_id: str) -> Install:
        """Return the team's active installation; a team without one gets a new bot token."""
        if self.of_team(team_id) is None:
            self.add(team_id, f"xoxb-{uuid.uuid4().hex}", "A1", "UBOT", "B1")
        install = self.of_team(team_id)
        assert install is not None
        return install

    def end(self, token: str) -> None:
        """End the installation: calls with its token get `account_inactive` from now on."""
        with self._database.change() as connection:
            connection.execute("UPDATE installs SET active = 0 WHERE token = ?", (token,))

    def expire(self, token: str) -> None:
        """Let the bot token expire: calls with it get `token_expired` from now on."""
        with self._database.change() as connection:
            connection.execute("REPLACE INTO expired VALUES (?)", (token,))

    def is_expired(self, token: str) -> bool:
        """Return whether the bot token has expired."""
        return bool(self._database.rows("SELECT 1 FROM expired WHERE token = ?", token))

    def new_refresh_token(self, team_id: str) -> str:
        """Return a refresh token for the team, which can be exchanged once."""
        token = f"xoxe-1-{uuid.uuid4().hex}"
        with self._database.change() as connection:
            connection.execute("INSERT INTO refresh_tokens VALUES (?, ?)", (token, team_id))
        return token

    def redeem_refresh_token(self, token: str) -> Install | None:
        """Return the team's installation with a new bot token, or None if the token was used.

        The team's earlier bot tokens work until they expire.
        """
        with self._database.change() as connection:
            row = connection.execute(
                "DELETE FROM refresh_tokens WHERE token = ? RETURNING team_id", (token,)
            ).fetchone()
        if row is None:
            return None
        bot_token = f"xoxe.xoxb-1-{uuid.uuid4().hex}"
        self.add(row["team_id"], bot_token, "A1", "UBOT", "B1")
        return self.of_token(bot_token)

    def of_token(self, token: str) -> Install | None:
        """Return the installation with this bot token, active or not."""
        return _first(self._database.rows("SELECT * FROM installs WHERE token = ?", token))

    def of_team(self, team_id: str) -> Install | None:
        """Return the team's active installation."""
        return _first(
            self._database.rows("SELECT * FROM installs WHERE team_id = ? AND active", team_id)
        )

    def new_code(self, team_id: str) -> str:
        """Return a new authorization code, as if somebody in the team had agreed to install."""
        code = uuid.uuid4().hex
        with self._database.change() as connection:
            connection.execute("INSERT INTO codes VALUES (?, ?)", (code, team_id))
        return code

    def redeem_code(self, code: str) -> str | None:
        """Return the team of an authorization code, or None if the code was used before."""
        with self._database.change() as connection:
            row = connection.execute(
                "DELETE FROM codes WHERE code = ? RETURNING team_id", (code,)
            ).fetchone()
        return row["team_id"] if row else None


def _first(rows: list[sqlite3.Row]) -> Install | None:
    if not rows:
        return None
    fields = dict(rows[0])
    return Install(**fields | {"active": bool(fields["active"])})
