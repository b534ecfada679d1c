"""Where a repository is fetched from and pushed to, and the login for it."""

import hashlib
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from coding_tasks.failures import RepositoryRefused
from coding_tasks.repositories.clone_urls import UnsafeCloneURL, protocol_of

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_LONGEST_LOGIN = 16_000  # bytes that fit into a pipe


@dataclass(frozen=True)
class Login:
    """A user name and a password or token, which `repr` does not show."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Remote:
    """A remote repository. `key` identifies it: the same address may be fetched by two projects.

    Raises `RepositoryRefused` if git must not be given the address, or the login.
    """

    key: str
    url: str
    login: Login | None = None

    def __post_init__(self) -> None:
        try:
            protocol = protocol_of(self.url)
        except UnsafeCloneURL as error:
            raise RepositoryRefused(f"the address is refused: {error}") from error
        if self.login is not None:
            self._check_login(protocol, self.login)

    def _check_login(self, protocol: str, login: Login) -> None:
        local = protocol == "http" and urlsplit(self.url).hostname in LOOPBACK
        if protocol != "https" and not local:
            raise RepositoryRefused("a token is only sent over https")
        text = login.username + login.password
        if not text.isprintable() or len(text) > _LONGEST_LOGIN:
            raise RepositoryRefused("the token cannot be sent: it is not one line")

    @property
    def host(self) -> str:
        """The address without its path, as git compares addresses to choose a login."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def folder(self) -> str:
        """The name of the remote's folders on this machine."""
        return hashlib.sha256(f"{self.key}\n{self.url}".encode()).hexdigest()[:32]
