"""Credentials that repositories are fetched and pushed with."""

from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.db import models

from coding_tasks.repositories.remotes import LOOPBACK
from projects.encryption import EncryptedTextField
from projects.models import Project


def validate_api_url(url: str) -> None:
    """Raise `ValidationError` unless a token may be sent to the address."""
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in LOOPBACK:
        raise ValidationError("A token is only sent over https.")


class _WithoutSecrets(models.Manager["GitCredential"]):
    """Decrypts a secret only if it is used: most pages and forms need none."""

    def get_queryset(self) -> models.QuerySet["GitCredential"]:
        """Return the credentials without their secrets, which are read on demand."""
        return super().get_queryset().defer("secret")


class GitCredential(models.Model):
    """What a project's repositories are fetched and pushed with. Only our own machine uses it."""

    class Kind(models.TextChoices):
        TOKEN = "token"  # noqa: S105
        GITHUB_APP = "github_app", "GitHub App"
        SSH = "ssh", "the worker's own SSH keys"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="git_credentials")
    name = models.CharField(max_length=100)
    kind = models.CharField(max_length=10, choices=Kind.choices, default=Kind.TOKEN)
    username = models.CharField(
        max_length=100,
        default="x-access-token",
        help_text="The user name that goes with a token. GitHub takes any, GitLab takes oauth2.",
    )
    secret = EncryptedTextField(blank=True, default="")
    app_id = models.CharField(max_length=20, blank=True, default="", verbose_name="app id")
    installation_id = models.PositiveBigIntegerField(null=True, blank=True)
    api_url = models.CharField(
        max_length=200,
        blank=True,
        default="",
        validators=[validate_api_url],
        verbose_name="API address",
        help_text="GitHub's API, for pull requests. Empty: https://api.github.com for repositories "
        "on github.com, and no pull requests elsewhere.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = _WithoutSecrets()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="git_credential_unique")
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Require what the kind of credential needs."""
        if self.kind == self.Kind.GITHUB_APP and not (self.app_id and self.installation_id):
            raise ValidationError("A GitHub App needs its app id and its installation id.")
