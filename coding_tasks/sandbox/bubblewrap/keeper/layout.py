"""Where the keeper has things in its own mount namespace. Arguments for bubblewrap name these."""

BASE = "/tmp"  # noqa: S108 - a mount of the keeper's own covers it
LOWER = f"{BASE}/lower"
"""The shared checkout."""
REPOSITORY = f"{BASE}/repository"
BINDS = f"{BASE}/binds"
"""Folders and files of the host: bubblewrap itself, and what commands may read."""
TREE_LAYER = f"{BASE}/tree"
HOME = f"{BASE}/home"
TEMPORARY = f"{BASE}/temporary"
TREE = f"{TREE_LAYER}/merged"
"""The tree as commands see it: the checkout and, above it, what they wrote."""
TEMPORARY_FILES = f"{TEMPORARY}/files"
SHARED_MEMORY = f"{TEMPORARY}/shared-memory"
ETC = f"{BASE}/etc"
"""Files that the keeper writes, because programs look for them."""
ETC_FILES = {
    "passwd": "agent:x:1000:1000:agent:/home/agent:/bin/sh\n",
    "group": "agent:x:1000:\n",
    "hosts": "127.0.0.1 localhost\n",
    "resolv.conf": "",
}
