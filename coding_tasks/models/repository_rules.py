"""Rules that choose a repository by a word in the request: "invoices" is about acme/billing."""

import re
import unicodedata
from collections.abc import Iterable

from django.core.exceptions import ValidationError
from django.db import models

from projects.models import Project

_WORD = re.compile(r"\w+")


class RepositoryRule(models.Model):
    """A keyword, and the repository that a project's requests with this keyword are about.

    A keyword is one word or several in a row. It is compared word by word, so it is no pattern.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="repository_rules")
    position = models.PositiveIntegerField(
        default=100, help_text="If several rules apply, the one with the lowest number decides."
    )
    keyword = models.CharField(
        max_length=100,
        help_text="One word, or several in a row. Case and punctuation make no difference.",
    )
    repository = models.ForeignKey("coding_tasks.Repository", on_delete=models.CASCADE)

    class Meta:
        ordering = ["project", "position", "pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "keyword"], name="repository_rule_once_per_keyword"
            )
        ]

    def __str__(self) -> str:
        return f"{self.keyword}: {self.repository}"

    def clean(self) -> None:
        """Require a word in the keyword, and a repository of the same project."""
        if not words_of(self.keyword):
            raise ValidationError({"keyword": "Write at least one word."})
        if self.repository_id and self.repository.project_id != self.project_id:
            raise ValidationError({"repository": "It belongs to another project."})


def repository_by_rules(rules: Iterable[RepositoryRule], text: str) -> int | None:
    """Return the repository of the first rule whose keyword is in the text, or None."""
    said = f" {' '.join(words_of(text))} "
    for rule in rules:
        keyword = words_of(rule.keyword)
        if keyword and f" {' '.join(keyword)} " in said:
            return rule.repository_id
    return None


def words_of(text: str) -> list[str]:
    """Return the words of a text, in the form in which they are compared."""
    return [word.casefold() for word in _WORD.findall(unicodedata.normalize("NFKC", text))]
