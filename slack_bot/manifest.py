"""The manifest of the Slack app: `manifest.yaml` with this server's address, or for Socket Mode."""

import re
from pathlib import Path

_FILE = Path(__file__).with_name("manifest.yaml")
_EXAMPLE = "https://tollgate.example.com"
_ADDRESSES = re.compile(rf"^ *\w*url: {_EXAMPLE}.*\n", re.MULTILINE)
_REDIRECT = re.compile(rf"^ *redirect_urls:\n *- {_EXAMPLE}.*\n", re.MULTILINE)
_ADVICE = re.compile(r"\A(?:#.*\n)+")


def manifest(public_url: str, *, socket_mode: bool = False) -> str:
    """Return the manifest as YAML.

    In Socket Mode, it has no request URLs. It has a redirect URL only if `public_url` is https,
    which Slack requires.
    """
    text = _ADVICE.sub("", _FILE.read_text())
    if socket_mode:
        text = _ADDRESSES.sub("", text)
        text = text.replace("socket_mode_enabled: false", "socket_mode_enabled: true")
    if not public_url.startswith("https://"):
        text = _REDIRECT.sub("", text)
    return text.replace(_EXAMPLE, public_url)
