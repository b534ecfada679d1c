"""Find secrets in what a change adds: the well-known forms of keys and tokens.

Only forms with a fixed beginning count, so a finding is seldom wrong. What is encrypted, compressed
or has no such form is not found.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from coding_tasks.agents.events import MASK

_NO_PASSWORD = rb"(?!(?:password|passwd|pass|secret|postgres|example|changeme)@)"


@dataclass(frozen=True)
class _Form:
    """A kind of secret: its name and its form. Each such secret contains one of `marks`."""

    name: str
    marks: tuple[bytes, ...]
    pattern: re.Pattern[bytes]


_FORMS = tuple(
    _Form(name, tuple(marks.split()), re.compile(pattern))
    for name, marks, pattern in (
        ("a private key", b"KEY-----",
         rb"-----BEGIN (?:[A-Z0-9]{2,12} ){0,2}PRIVATE KEY-----"),
        ("a private key", b"BLOCK-----", rb"-----BEGIN PGP PRIVATE KEY BLOCK-----"),
        ("a key of AWS", b"AKIA ASIA", rb"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b"),
        ("a token of GitHub", b"ghp_ gho_ ghu_ ghs_ ghr_", rb"\bgh[pousr]_[A-Za-z0-9]{36,255}\b"),
        ("a token of GitHub", b"github_pat_", rb"\bgithub_pat_[A-Za-z0-9_]{60,255}\b"),
        ("a token of GitLab", b"glpat- gldt- glrt- glcbt- glptt- glsoat-",
         rb"\bgl(?:pat|dt|rt|cbt|ptt|soat)-[A-Za-z0-9_-]{20,64}"),
        ("a token of Slack", b"xox xapp-",
         rb"\bx(?:ox[abeoprs]|app)-[0-9]{1,14}-[A-Za-z0-9-]{10,250}"),
        ("a webhook of Slack", b"hooks.slack.com",
         rb"hooks\.slack\.com/(?:services|workflows)/T[A-Za-z0-9_]{6,14}/[A-Za-z0-9_/]{16,80}"),
        ("a key of Anthropic", b"sk-ant-", rb"\bsk-ant-[A-Za-z0-9]{2,10}-[A-Za-z0-9_-]{20,200}"),
        ("a key of OpenAI", b"sk-proj- sk-svcacct- sk-admin-",
         rb"\bsk-(?:proj|svcacct|admin)-[A-Za-z0-9_-]{20,200}"),
        ("a key of OpenAI", b"T3BlbkFJ", rb"\bsk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}"),
        ("a key of Google", b"AIza", rb"\bAIza[A-Za-z0-9_-]{35}"),
        ("a key of Stripe", b"k_live_ k_test_", rb"\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,250}"),
        ("a key of SendGrid", b"SG.", rb"\bSG\.[A-Za-z0-9_-]{20,24}\.[A-Za-z0-9_-]{39,50}"),
        ("a token of npm", b"npm_", rb"\bnpm_[A-Za-z0-9]{36}\b"),
        ("a token of PyPI", b"pypi-AgE", rb"\bpypi-AgE[A-Za-z0-9_-]{50,250}"),
        ("a token of Docker Hub", b"dckr_", rb"\bdckr_(?:pat|oat)_[A-Za-z0-9_-]{24,64}"),
        ("a token of Hugging Face", b"hf_", rb"\bhf_[A-Za-z]{34}\b"),
        ("a token of DigitalOcean", b"_v1_", rb"\bdo[opr]_v1_[0-9a-f]{64}\b"),
        ("a key of Azure storage", b"AccountKey=", rb"\bAccountKey=[A-Za-z0-9+/]{86}=="),
        ("a key of Tollgate", b"phx_ pha_ phr_", rb"\bph[xar]_[A-Za-z0-9_-]{30,250}"),
        ("a password in an address", b"://",
         rb"://[^\s:/@'\"<>${}]{1,80}:" + _NO_PASSWORD + rb"[^\s:/@'\"<>${}]{6,100}@[A-Za-z0-9]"),
    )
)  # fmt: skip
_HUNK = re.compile(rb"@@ -\d+(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_MOST = 20


@dataclass(frozen=True)
class Finding:
    """A secret: what it is, and the file (by its number in the change) and line it is in."""

    name: str
    file: int
    line: int


def find_secrets(patch: bytes) -> list[Finding]:
    """Return the first secrets in a patch that has all files as text, without context."""
    plain = patch.replace(b"\0", b"")  # UTF-16 has one in each character
    forms = [form for form in _FORMS if any(mark in plain for mark in form.marks)]
    found: list[Finding] = []
    for file, line, text in _added_lines(plain) if forms else ():
        for form in forms:
            if any(mark in text for mark in form.marks) and form.pattern.search(text):
                found.append(Finding(form.name, file, line))
                if len(found) == _MOST:
                    return found
    return found


def hide_secrets(text: str) -> str:
    """Return the text with every secret that has a well-known form replaced by dots."""
    plain = text.encode("utf-8", "replace")
    for form in _FORMS:
        if any(mark in plain for mark in form.marks):
            plain = form.pattern.sub(MASK.encode(), plain)
    return plain.decode("utf-8", "replace")


def _added_lines(patch: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Return the added lines, each with the numbers of its file and line.

    The lines of a part are counted, so text that looks like the beginning of a part is no part.
    """
    file = -1
    header = b""
    removed = added = line = 0
    for record in patch.split(b"\n"):
        if removed and record.startswith(b"-"):
            removed -= 1
        elif added and record.startswith(b"+"):
            yield file, line, record[1:]
            added -= 1
            line += 1
        elif record.startswith(b"diff --git "):
            # A file that becomes a link has two sections in the patch, with the same header.
            file += record != header
            header = record
        elif part := _HUNK.match(record):
            removed, added = (int(part[1] or 1), int(part[3] or 1))
            line = int(part[2])
