"""Rules are compared word by word, and belong to one project."""

import time

import pytest
from django.core.exceptions import ValidationError

from coding_tasks.models import Repository, RepositoryRule
from coding_tasks.models.repository_rules import repository_by_rules
from projects.models import Organization, Project


def rule(keyword: str, repository_id: int = 1) -> RepositoryRule:
    return RepositoryRule(keyword=keyword, repository_id=repository_id)


@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        ("invoices", "Where are the INVOICES?"),
        ("Invoices", "invoices"),
        ("pull request", "a pull-request, please"),
        ("node.js", "is it Node JS?"),
        ("Straße", "STRASSE"),
        ("ﬁx", "fix it"),
        ("支付", "请看 支付 模块"),
    ],
)
def test_a_keyword_is_found_word_by_word(keyword, text):
    assert repository_by_rules([rule(keyword)], text) == 1


@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        ("invoice", "invoices"),
        ("pull request", "request a pull"),
        (".*", "anything"),
        ("(a+)+$", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"),
        ("", "anything"),
        ("invoices", ""),
    ],
)
def test_parts_of_words_other_orders_and_patterns_are_not_found(keyword, text):
    assert repository_by_rules([rule(keyword)], text) is None


def test_the_first_rule_that_applies_decides():
    rules = [rule("refund", 1), rule("invoices", 2), rule("paid", 3)]
    assert repository_by_rules(rules, "who paid invoices?") == 2


def test_many_rules_and_a_long_text_take_little_time():
    rules = [rule(f"word{number} other") for number in range(500)]
    began = time.process_time()
    assert repository_by_rules(rules, "word0 " * 6_000) is None
    assert time.process_time() - began < 1


def test_a_rule_needs_a_word_and_a_repository_of_its_project(db):
    organization = Organization.objects.create(name="Acme")
    project = Project.objects.create(organization=organization, name="Main")
    other = Project.objects.create(organization=organization, name="Other")
    here = Repository.objects.create(project=project, full_name="a/b", clone_url="https://x/y")
    there = Repository.objects.create(project=other, full_name="a/b", clone_url="https://x/y")
    RepositoryRule(project=project, keyword="b", repository=here).full_clean()
    with pytest.raises(ValidationError, match="another project"):
        RepositoryRule(project=project, keyword="b", repository=there).full_clean()
    with pytest.raises(ValidationError, match="at least one word"):
        RepositoryRule(project=project, keyword="...", repository=here).full_clean()
