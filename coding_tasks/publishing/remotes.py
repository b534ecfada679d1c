"""From a repository's row to the remote that git uses."""

from urllib.parse import urlsplit

from cryptography.fernet import InvalidToken

from coding_tasks.failures import CheckoutFailed, RepositoryRefused, RepositoryUnreachable
from coding_tasks.models import Repository
from coding_tasks.models.git_credentials import GitCredential
from coding_tasks.publishing import github
from coding_tasks.repositories.clone_urls import protocol_of
from coding_tasks.repositories.remotes import Login, Remote

_GITHUB, _GITHUB_API = "github.com", "https://api.github.com"
_APP_USER = "x-access-token"


def remote_of(repository: Repository) -> Remote:
    """Return the remote with its login. A GitHub App gets a new token. Raises `CheckoutFailed`."""
    return Remote(str(repository.pk), repository.clone_url, _login(repository))


def remote_without_login(repository: Repository) -> Remote:
    """Return the remote for what needs no network. Raises `RepositoryRefused`."""
    return Remote(str(repository.pk), repository.clone_url)


def takes_pushes(repository: Repository) -> bool:
    """Return whether changes are pushed: there is a credential, or it is on this machine's disk."""
    return _credential(repository) is not None or protocol_of(repository.clone_url) == "file"


def api_url_of(repository: Repository) -> str:
    """Return the address of GitHub's API for the repository, or an empty text."""
    credential = _credential(repository)
    if credential is None or credential.kind == GitCredential.Kind.SSH:
        return ""
    on_github = urlsplit(repository.clone_url).hostname == _GITHUB
    return credential.api_url or (_GITHUB_API if on_github else "")


def name_on_github(repository: Repository) -> str:
    """Return owner/name as the clone address has it."""
    path = urlsplit(repository.clone_url).path.strip("/")
    return "/".join(path.removesuffix(".git").split("/")[-2:])


def _credential(repository: Repository) -> GitCredential | None:
    try:
        return repository.credential
    except InvalidToken as error:
        raise CheckoutFailed(
            "the repository's credential was encrypted with another SECRET_KEY", permanent=True
        ) from error


def _login(repository: Repository) -> Login | None:
    credential = _credential(repository)
    if credential is None or credential.kind == GitCredential.Kind.SSH:
        return None
    if credential.kind == GitCredential.Kind.TOKEN:
        return Login(credential.username, credential.secret)
    try:
        token = github.installation_token(
            api_url_of(repository) or _GITHUB_API,
            credential.app_id,
            credential.secret,
            credential.installation_id or 0,
        )
    except github.GitHubFailed as error:
        if error.permanent:
            raise RepositoryRefused(str(error)) from error
        raise RepositoryUnreachable(str(error)) from error
    return Login(_APP_USER, token)
