"""Takes a session's files out of a home, and puts them back, with a tar that runs inside."""

SAVE = """\
set -u
cd "$HOME"
for path in "$@"; do
  shift
  [ -e "$path" ] && set -- "$@" "$path"
done
[ $# -eq 0 ] || exec tar --create --gzip --sparse --ignore-failed-read --file=- -- "$@"
"""
"""Writes an archive of the arguments that exist to standard output, or nothing.

Sparse files stay sparse, so that what fitted into a home fits into another one. Files that cannot
be read are left out.
"""

RESTORE = 'exec tar --extract --gzip --file=- --no-same-owner --directory="$HOME"'
"""Unpacks the archive on standard input."""
