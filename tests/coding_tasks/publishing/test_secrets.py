"""Which secrets are found in a change, and where."""

import pytest

from coding_tasks.publishing.secrets import Finding, find_secrets

SECRETS = [
    ("a private key", "-----BEGIN RSA " + "PRIVATE KEY-----"),
    ("a private key", "-----BEGIN " + "PRIVATE KEY-----"),
    ("a private key", "-----BEGIN PGP " + "PRIVATE KEY BLOCK-----"),
    ("a key of AWS", "AKIA" + "Q" * 16),
    ("a token of GitHub", "ghp_" + "a1B2" * 9),
    ("a token of GitHub", "github_pat_" + "a" * 82),
    ("a token of GitLab", "glpat-" + "a" * 20),
    ("a token of Slack", "xoxb-" + "1" * 12 + "-" + "a" * 24),
    ("a webhook of Slack", "https://hooks.slack.com/services/" + "T00000000/B00000000/" + "X" * 24),
    ("a key of Anthropic", "sk-ant-" + "api03-" + "a" * 40),
    ("a key of OpenAI", "sk-proj-" + "a" * 40),
    ("a key of Google", "AIza" + "a" * 35),
    ("a key of Stripe", "sk_live_" + "a" * 24),
    ("a key of SendGrid", "SG." + "a" * 22 + "." + "b" * 43),
    ("a token of npm", "npm_" + "a" * 36),
    ("a token of PyPI", "pypi-AgE" + "a" * 60),
    ("a token of Docker Hub", "dckr_pat_" + "a" * 27),
    ("a token of Hugging Face", "hf_" + "a" * 34),
    ("a token of DigitalOcean", "dop_v1_" + "a" * 64),
    ("a key of Azure storage", "AccountKey=" + "a" * 86 + "=="),
    ("a key of Tollgate", "phx_" + "a" * 40),
    ("a password in an address", "postgres://app:hunter2222@db.internal/app"),
]


def patch(*lines: str) -> bytes:
    body = "".join(f"+{line}\n" for line in lines)
    return (
        "diff --git a/x b/x\nnew file mode 100644\n--- /dev/null\n+++ b/x\n"
        f"@@ -0,0 +1,{len(lines)} @@\n{body}"
    ).encode()


@pytest.mark.parametrize(("name", "secret"), SECRETS)
def test_well_known_forms_are_found(name, secret):
    assert find_secrets(patch("first", f'key = "{secret}"')) == [Finding(name, 0, 2)]


@pytest.mark.parametrize(
    "line",
    [
        "sk-learn", "ghp_short", "AKIA", "https://example.com:8080/path@v2", "SG.1.2",
        "postgres://user:password@localhost/db", "redis://${USER}:${PASSWORD}@host",
        "token = os.environ['GITHUB_TOKEN']", "-----BEGIN CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----", "integrity sha512-" + "a" * 86 + "==",
    ],
)  # fmt: skip
def test_ordinary_text_is_no_secret(line):
    assert find_secrets(patch(line)) == []


def test_text_in_utf_16_is_read():
    assert find_secrets(patch("AKIA" + "Q" * 16).replace(b"A", b"A\0").replace(b"Q", b"Q\0"))


def test_only_added_lines_count_and_each_has_its_file_and_line():
    secret = "AKIA" + "Q" * 16
    hostile = f"++ b/elsewhere {secret}"
    text = (
        f"diff --git a/one b/one\n--- a/one\n+++ b/one\n@@ -3 +3 @@\n-{secret}\n+gone\n"
        f"@@ -9,0 +10,2 @@\n+diff --git a/fake b/fake\n+{secret}\n"
        f"diff --git a/mode b/mode\nold mode 100644\nnew mode 100755\n"
        f"diff --git a/two b/two\n--- a/two\n+++ b/{secret}\n@@ -1,0 +2 @@\n+{hostile}\n"
        "\\ No newline at end of file\n"
    )
    assert find_secrets(text.encode()) == [
        Finding("a key of AWS", 0, 11),
        Finding("a key of AWS", 2, 2),
    ]


def test_findings_are_bounded():
    assert len(find_secrets(patch(*["AKIA" + "Q" * 16] * 1000))) == 20
