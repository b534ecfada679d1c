"""OAuth 2.0 for desktop clients: each authorization is for one project, which the user chooses.

django-oauth-toolkit implements the protocol. This module adds the project, which is passed from the
consent page to the code, the tokens and each refreshed pair. A user who is inactive or has left the
organization gets no more tokens. If a code is used twice, the tokens it gave are revoked.
"""

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import UUID, uuid5

from django import forms
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from oauth2_provider.forms import AllowForm
from oauth2_provider.oauth2_validators import OAuth2Validator
from oauth2_provider.views import AuthorizationView
from oauth2_provider.views import TokenView as ToolkitTokenView
from oauthlib.common import Request as ProtocolRequest
from oauthlib.oauth2.rfc6749 import errors

from projects.models import OAuthAccessToken, OAuthGrant, OAuthRefreshToken, Project, User
from projects.tokens import sha256

GRANTS = ("authorization_code", "refresh_token")

_FAMILIES = UUID("0c8d5a1e-7a60-4f0d-9d29-5f5c3f0b6a4d")


def family_of(code: str) -> UUID:
    """Return the family of the tokens that a code gives, and of the tokens that replace them.

    It is derived from the code, so it is known even after the code was deleted.
    """
    return uuid5(_FAMILIES, sha256(code))


class Request(ProtocolRequest):
    """An oauthlib request, with attributes that the toolkit and this module add."""

    code: str
    refresh_token_instance: OAuthRefreshToken
    chosen_project: Project


class ProjectBoundValidator(OAuth2Validator):
    """Carries the chosen project as `request.chosen_project`.

    The attribute is trusted only if it is a `Project`, because oauthlib also returns request
    parameters as attributes, as text.
    """

    def validate_grant_type(
        self, client_id: str, grant_type: str, client: Any, request: Request, *args: Any, **kw: Any
    ) -> bool:
        """Return whether this is one of the two grants that carry a project."""
        return grant_type in GRANTS and super().validate_grant_type(
            client_id, grant_type, client, request, *args, **kw
        )

    def save_authorization_code(
        self, client_id: str, code: dict[str, str], request: Request, *args: Any, **kwargs: Any
    ) -> None:
        """Save the code together with the project chosen on the consent page."""
        project = _chosen_project(request)
        super().save_authorization_code(client_id, code, request, *args, **kwargs)
        OAuthGrant.objects.filter(code=code["code"]).update(project=project)

    def validate_code(
        self, client_id: str, code: str, client: Any, request: Request, *args: Any, **kwargs: Any
    ) -> bool:
        """Return whether the code is valid and its user is still in the project's organization.

        A code that is used twice may have been stolen, so its tokens are revoked (RFC 6749, 4.1.2).
        """
        # Other requests with the same code wait here, and then find it used.
        locked = OAuthGrant.objects.select_for_update(of=("self",)).select_related("project")
        grant = locked.filter(code=code, application=client).first()
        if grant is None:
            _end_family(family_of(code), client)
            return False
        if not super().validate_code(client_id, code, client, request, *args, **kwargs):
            return False
        return _bind(request, grant.user, grant.project)

    def validate_refresh_token(
        self, refresh_token: str, client: Any, request: Request, *args: Any, **kwargs: Any
    ) -> bool:
        """Return whether the token is valid and its user is still in the project's organization."""
        # Other requests with the same token wait here, and then find it used.
        digest = sha256(refresh_token)
        list(OAuthRefreshToken.objects.select_for_update().filter(token_checksum=digest))
        if not super().validate_refresh_token(refresh_token, client, request, *args, **kwargs):
            return False
        presented = request.refresh_token_instance
        return _bind(request, presented.user, presented.project)

    def _create_refresh_token(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        refresh = super()._create_refresh_token(request, *args, **kwargs)
        if request.grant_type == "authorization_code":
            refresh.token_family = family_of(request.code)
            refresh.save(update_fields=["token_family"])
        return refresh

    def _save_bearer_token(
        self, token: dict[str, Any], request: Request, *args: Any, **kwargs: Any
    ) -> None:
        project = _chosen_project(request)
        super()._save_bearer_token(token, request, *args, **kwargs)
        access, refresh = sha256(token["access_token"]), sha256(token["refresh_token"])
        OAuthAccessToken.objects.filter(token_checksum=access).update(project=project)
        OAuthRefreshToken.objects.filter(token_checksum=refresh).update(project=project)


def _end_family(family: UUID, client: Any) -> None:
    """Revoke all tokens of a family and announce that, like every revocation."""
    tokens = OAuthRefreshToken.objects.filter(token_family=family, application=client, revoked=None)
    for token in tokens.order_by("pk"):
        token.revoke()


def _bind(request: Request, user: User, project: Project | None) -> bool:
    if project is None or not user.is_active or project not in _projects_of(user):
        return False
    request.chosen_project = project
    return True


def _chosen_project(request: Request) -> Project:
    project = getattr(request, "chosen_project", None)
    if not isinstance(project, Project):
        raise errors.InvalidRequestError(description="No project was chosen.", request=request)
    return project


def _projects_of(user: User | AnonymousUser) -> Any:
    """Return the projects that a user may choose from."""
    return Project.objects.filter(organization__members=user.pk).order_by(
        "organization__name", "name"
    )


class TokenView(ToolkitTokenView):
    """The token endpoint without the toolkit's device grant."""

    def post(self, request: HttpRequest, *_args: Any, **_kwargs: Any) -> HttpResponse:
        """Exchange a code or a refresh token."""
        answer: HttpResponse = self.authorization_flow_token_response(request)
        return answer


class ConsentForm(AllowForm):
    """The consent form: allow access for a project, or refuse."""

    project = forms.ModelChoiceField(
        queryset=Project.objects.none(),
        required=False,
        empty_label="Choose a project",
        widget=forms.Select(attrs={"required": True}),
    )

    def clean(self) -> dict[str, Any]:
        """Require a project if the user allows access."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if cleaned.get("allow") and not cleaned.get("project"):
            self.add_error("project", "Choose the project that the application may use.")
        return cleaned


class ConsentView(AuthorizationView):
    """The page on which a user allows a client access to one project. It is never skipped."""

    template_name = "projects/authorize.html"
    form_class = ConsentForm

    def get_form(self, form_class: Any = None) -> ConsentForm:
        """Return the form with the user's own projects; a single one is preselected."""
        form: ConsentForm = super().get_form(form_class)
        offered = _projects_of(self.request.user)
        field = form.fields["project"]
        field.queryset = offered
        if len(offered) == 1:
            field.initial = offered[0]
        return form

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Show the page even if the client asks to skip it."""
        query = request.GET.copy()
        query["approval_prompt"] = "force"
        request.GET = query  # type: ignore[assignment]
        page: HttpResponse = super().get(request, *args, **kwargs)
        return page

    def form_valid(self, form: ConsentForm) -> HttpResponse:
        """Send the browser back to the client, with a code or with the refusal."""
        self.project = form.cleaned_data["project"]
        answer: HttpResponse = super().form_valid(form)
        return answer

    def form_invalid(self, _form: ConsentForm) -> HttpResponse:
        """Show the page again. Browsers don't send the form without a project."""
        return redirect(self.request.get_full_path())

    def redirect(self, redirect_to: str, application: Any) -> HttpResponse:
        """Send the browser back to the client, always naming the issuer (RFC 9207)."""
        parts = urlsplit(redirect_to)
        query = [pair for pair in parse_qsl(parts.query, True) if pair[0] != "iss"]
        query.append(("iss", settings.PUBLIC_URL))
        target = parts._replace(query=urlencode(query)).geturl()
        answer: HttpResponse = super().redirect(target, application)
        return answer

    def create_authorization_response(
        self, request: HttpRequest, scopes: str, credentials: dict[str, Any], allow: bool
    ) -> Any:
        """Pass the chosen project to the validator, or None if the page was not shown."""
        credentials["chosen_project"] = getattr(self, "project", None)
        return super().create_authorization_response(request, scopes, credentials, allow)
