"""Credentials, stored as their SHA-256.

Every deletion is announced in its own transaction: the admin, django-oauth-toolkit and our code all
delete through the query sets and models below. Deleting something else never deletes a credential,
because foreign keys protect it.
"""

from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.utils import timezone
from oauth2_provider.models import (
    AbstractAccessToken,
    AbstractApplication,
    AbstractGrant,
    AbstractIDToken,
    AbstractRefreshToken,
)

from projects import revocation
from projects.models.organizations import Organization, Project, User

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class PersonalAPIKeyQuerySet(models.QuerySet["PersonalAPIKey"]):
    """Personal API keys."""

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete, and announce the keys that still worked."""
        with transaction.atomic():
            live = list(self.filter(revoked_at=None).values_list("sha256", flat=True))
            deleted: tuple[int, dict[str, int]] = super().delete()
            revocation.announce(live)
        return deleted


class PersonalAPIKey(models.Model):
    """A long-lived credential (`phx_…`), shown once, when it is made. Only its SHA-256 is stored.

    It covers the listed projects, or with `all_projects` every project of the organization, later
    ones included. This can't be changed later.
    """

    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="personal_api_keys"
    )
    user = models.ForeignKey(
        User,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="personal_api_keys",
        help_text="Empty for a key that an operator made for a program.",
    )
    label = models.CharField(max_length=100)
    sha256 = models.CharField(max_length=64, unique=True, editable=False)
    mask = models.CharField(max_length=20, editable=False, help_text="How the key begins and ends.")
    scopes = models.JSONField(default=list)
    all_projects = models.BooleanField(
        default=False, help_text="Covers every project of the organization, later ones included."
    )
    projects: models.ManyToManyField[Project, Any] = models.ManyToManyField(
        Project, blank=True, related_name="personal_api_keys"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects = PersonalAPIKeyQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        verbose_name = "personal API key"

    def __str__(self) -> str:
        return f"{self.label} ({self.mask})"

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Delete, and announce the key."""
        with transaction.atomic():
            deleted: tuple[int, dict[str, int]] = super().delete(*args, **kwargs)
            revocation.announce([self.sha256])
        return deleted


class OAuthApplication(AbstractApplication):
    """An OAuth client, such as a desktop application. It is in this app because tokens refer to it.

    Authorization code is the only grant: RFC 9700 sections 2.1.2 and 2.4 rule out the others.
    """

    authorization_grant_type = models.CharField(
        max_length=44,
        choices=[(AbstractApplication.GRANT_AUTHORIZATION_CODE, "Authorization code")],
        default=AbstractApplication.GRANT_AUTHORIZATION_CODE,
    )

    class Meta(AbstractApplication.Meta):
        verbose_name = "OAuth application"

    def clean(self) -> None:
        """Accept plain http only for native applications on the same machine (RFC 8252, 7.3)."""
        super().clean()
        if self.skip_authorization:
            raise ValidationError({"skip_authorization": "Users always choose the project."})
        for uri in self.redirect_uris.split():
            if uri.startswith("http://") and not _is_loopback(uri):
                raise ValidationError({"redirect_uris": f"{uri}: use https, or http://127.0.0.1."})


def _is_loopback(uri: str) -> bool:
    try:
        return urlsplit(uri).hostname in LOOPBACK
    except ValueError:
        return False


class OAuthGrant(AbstractGrant):
    """An authorization code. It is valid for a minute and holds the project the user chose."""

    project = models.ForeignKey(Project, null=True, on_delete=models.CASCADE)

    class Meta(AbstractGrant.Meta):
        verbose_name = "OAuth grant"


class OAuthAccessTokenQuerySet(models.QuerySet["OAuthAccessToken"]):
    """OAuth access tokens."""

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete, and announce the tokens that had not expired."""
        with transaction.atomic():
            unexpired = self.filter(expires__gt=timezone.now())
            live = list(unexpired.values_list("token_checksum", flat=True))
            deleted: tuple[int, dict[str, int]] = super().delete()
            revocation.announce(live)
        return deleted


class OAuthAccessToken(AbstractAccessToken):
    """An OAuth access token (`pha_…`), stored hashed, for one project and at most one task run.

    Tokens minted for a coding task have `project`, `task_run_id` and `products`. Tokens of a
    desktop client have `application`, `user` and the project the user chose.
    """

    user = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.PROTECT, related_name="oauth_access_tokens"
    )
    application = models.ForeignKey(
        OAuthApplication, null=True, blank=True, on_delete=models.PROTECT
    )
    project = models.ForeignKey(
        Project, null=True, blank=True, on_delete=models.PROTECT, related_name="oauth_access_tokens"
    )
    task_run_id = models.UUIDField(null=True, blank=True, db_index=True)
    distinct_id = models.CharField(
        max_length=200,
        blank=True,
        default="",
        db_default="",
        help_text="The person whose work it is for.",
    )
    products = models.JSONField(
        default=list, blank=True, help_text="Gateway products it may call; empty: by its kind."
    )
    accepted_micro = models.BigIntegerField(
        null=True,
        blank=True,
        help_text="The most micro-credits that its task run may cost, if somebody accepted a "
        "number. Empty: only the configured caps apply.",
    )

    objects = OAuthAccessTokenQuerySet.as_manager()

    class Meta(AbstractAccessToken.Meta):
        verbose_name = "OAuth access token"

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Delete, and announce the token."""
        with transaction.atomic():
            deleted: tuple[int, dict[str, int]] = super().delete(*args, **kwargs)
            revocation.announce([self.token_checksum])
        return deleted


class OAuthRefreshToken(AbstractRefreshToken):
    """A refresh token (`phr_…`), stored hashed. It passes its project to the next access token."""

    project = models.ForeignKey(Project, null=True, on_delete=models.CASCADE)

    class Meta(AbstractRefreshToken.Meta):
        verbose_name = "OAuth refresh token"


class OAuthIDToken(AbstractIDToken):
    """An OpenID Connect ID token. We issue none, but access tokens refer to this model."""
