"""Takes a change out of a workspace: git runs inside, on a repository that the agent never saw."""

import re

SCRIPT = """\
set -eu
git init --quiet --bare --object-format="$FORMAT" --template= "$GIT_DIR"
export GIT_WORK_TREE=/work
echo /repository/objects >"$GIT_DIR/objects/info/alternates"
[ -e "$GIT_INDEX_FILE" ] || git read-tree "$COMMIT"
status=0
said=$(git add --all --ignore-errors 2>&1) || status=$?
case $status in
  0) ;;
  1) echo incomplete >&2 ;;
  *)
    # git stops at a file that is not in the encoding of its attribute. It is taken as it is.
    git ls-files -z --modified --others --exclude-standard >"$GIT_DIR/changed" &&
    xargs -0 -n 1 sh -c "$ADD_ONE" sh <"$GIT_DIR/changed" ||
    { echo "$said" >&2; exit "$status"; }
    ;;
esac
exec git diff --cached --no-color --no-ext-diff --no-textconv --ignore-submodules=all \\
  --binary --full-index --find-renames --src-prefix=a/ --dst-prefix=b/ "$COMMIT" --
"""
"""Writes the patch to standard output, and "incomplete" to standard error if files are left out."""

_ADD_ONE = """\
git add --all -- ":(literal)$1" 2>/dev/null && exit
[ -f "$1" ] && [ ! -L "$1" ] && object=$(git hash-object -w --no-filters -- "$1" 2>/dev/null) ||
{ echo incomplete >&2; exit 0; }
mode=100644
[ ! -x "$1" ] || mode=100755
git update-index --add --cacheinfo "$mode,$object,$1"
"""
"""Adds one file to the index. If git cannot convert the file, it is added unchanged."""

HOME_INSIDE = "/export"
INDEX_NAME = "index"
INDEX_INSIDE = f"{HOME_INSIDE}/{INDEX_NAME}"
REPOSITORY_INSIDE = "/repository"

_CONFIGURATION = {
    "advice.addEmbeddedRepo": "false",
    "core.attributesFile": "/dev/null",
    "core.autocrlf": "false",
    "core.checkStat": "minimal",  # inodes and owners look different inside
    "core.excludesFile": "/dev/null",
    "core.fileMode": "true",
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "core.preloadIndex": "true",
    "core.safecrlf": "false",
    "core.symlinks": "true",
    "core.trustctime": "false",
    "gc.auto": "0",
}


def is_commit(name: str) -> bool:
    """Return whether the name is a commit's full id, or empty. Branches and options are not."""
    return not name or re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", name) is not None


def environment(commit: str) -> dict[str, str]:
    """Return the environment of the script."""
    settings = dict(enumerate(_CONFIGURATION.items()))
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": HOME_INSIDE,
        "LC_ALL": "C.UTF-8",
        "ADD_ONE": _ADD_ONE,
        "COMMIT": commit or _EMPTY_TREE,
        "FORMAT": "sha256" if len(commit) == _SHA256 else "sha1",
        "GIT_DIR": f"{HOME_INSIDE}/git",
        "GIT_INDEX_FILE": INDEX_INSIDE,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_COUNT": str(len(settings)),
        **{f"GIT_CONFIG_KEY_{number}": name for number, (name, _) in settings.items()},
        **{f"GIT_CONFIG_VALUE_{number}": value for number, (_, value) in settings.items()},
    }


_EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
"""Every git knows this tree without having it."""
_SHA256 = 64
"""Characters of a commit in repositories that use SHA-256."""
