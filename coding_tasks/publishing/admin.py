"""Admin pages of credentials for repositories."""

from typing import Any

from django import forms
from django.contrib import admin

from coding_tasks.models.git_credentials import GitCredential
from projects.admin_parts.named_search import NamedSearch


class GitCredentialForm(forms.ModelForm[GitCredential]):
    """The form of a credential. Its secret can be replaced but not read."""

    new_secret = forms.CharField(
        required=False,
        label="Token or private key",
        widget=forms.Textarea(attrs={"rows": 3, "autocomplete": "off", "spellcheck": "false"}),
        help_text="The token, or the GitHub App's private key (PEM). Empty: it stays as it is. "
        "It is stored encrypted and never shown.",
    )

    class Meta:
        model = GitCredential
        exclude = ["secret"]  # noqa: DJ006

    def clean(self) -> dict[str, Any]:
        """Require a secret for a new credential, unless it is the worker's own SSH key."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        secret = cleaned.get("new_secret", "").strip()
        kind = cleaned.get("kind")
        if secret:
            self.instance.secret = secret
        elif kind == GitCredential.Kind.SSH:
            self.instance.secret = ""
        elif self.instance._state.adding or self.initial.get("kind") == GitCredential.Kind.SSH:
            self.add_error("new_secret", "This kind of credential needs a secret.")
        return cleaned


@admin.register(GitCredential)
class GitCredentialAdmin(NamedSearch, admin.ModelAdmin[GitCredential]):
    """Credentials that repositories are fetched and pushed with."""

    form = GitCredentialForm
    list_display = ["name", "kind", "project", "organization", "created_at"]
    list_filter = ["kind"]
    list_select_related = ["project__organization"]
    search_fields = ["name", "project__name", "project__organization__name"]
    named_by = ["name"]
    autocomplete_fields = ["project"]

    @admin.display(ordering="project__organization__name")
    def organization(self, credential: GitCredential) -> str:
        """Return the name of the organization that owns it."""
        return credential.project.organization.name
