"""The one table: what was measured, what it should be, and how quiet the machine was."""

from dataclasses import dataclass, field

HEAD = ("| figure | measured | target | | noise |", "|---|---|---|---|---|")


@dataclass(frozen=True)
class Row:
    """One figure. `met` is None where there is no target."""

    what: str
    seen: str
    target: str = ""
    met: bool | None = None
    note: str = ""
    exactness: bool = False
    noisy: bool = False


@dataclass
class Table:
    """Collects rows, shows each as it comes and all at the end."""

    rows: list[Row] = field(default_factory=list)

    def add(
        self,
        what: str,
        seen: str,
        target: str = "",
        met: bool | None = None,
        note: str = "",
        *,
        exactness: bool = False,
        noisy: bool = False,
    ) -> None:
        """Add a row. A row about exactness does not depend on how fast or quiet the machine is.

        `noisy`: others used the machine so much that a miss may be theirs.
        """
        row = Row(what, seen, target, met, note, exactness, noisy)
        self.rows.append(row)
        print(f"  {_line(row)}", flush=True)

    def show(self) -> None:
        """Print the table in Markdown, as README.gateway.md keeps it."""
        print("\n" + "\n".join(HEAD))
        for row in self.rows:
            print(f"| {row.what} | {row.seen} | {row.target} | {_mark(row)} | {row.note} |")

    @property
    def missed(self) -> list[Row]:
        """Rows whose target was missed."""
        return [row for row in self.rows if row.met is False]

    @property
    def inexact(self) -> bool:
        """Whether a row about exactness missed its target."""
        return any(row.exactness for row in self.missed)


def _mark(row: Row) -> str:
    if row.met is False:
        return "not met, but noisy" if row.noisy else "**not met**"
    return "met" if row.met else ""


def _line(row: Row) -> str:
    target = f"  (target {row.target}: {_mark(row)})" if row.target else ""
    note = f"  [{row.note}]" if row.note else ""
    return f"{row.what}: {row.seen}{target}{note}"
