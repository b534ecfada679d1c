"""Paths in the keeper's own mount namespace. Arguments of programs contain them."""

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
RUN = f"{BASE}/run"
"""What one run of gVisor needs. Each run mounts its own here."""
RUN_ROOT = f"{RUN}/root"
"""The root of the file system inside."""
RUN_SCRATCH = f"{RUN}/scratch"
RUN_LOG = f"{RUN}/log"
ETC = f"{BASE}/etc"
"""Files that the keeper writes, because programs look for them."""
ETC_FILES = {
    "passwd": "agent:x:1000:1000:agent:/home/agent:/bin/sh\n",
    "group": "agent:x:1000:\n",
    "hosts": "127.0.0.1 localhost\n",
    "resolv.conf": "",
}
