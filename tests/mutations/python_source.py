"""Mutations of Python code, by Cosmic Ray's operators and one of our own."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator

from tests.mutations.mutation import CHOSEN_FREELY, Mutation, mutation_of

# The operators whose mutants are real mistakes: a boundary, a sign, a forgotten case. Cosmic Ray
# has all pairs of operators; the rest of the pairs fail for the same reason as these.
CORE = (
    *(
        f"ReplaceComparisonOperator_{pair}"
        for pair in (
            "Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt",
            "Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is",
        )
    ),
    *(
        f"ReplaceBinaryOperator_{pair}"
        for pair in ("Add_Sub", "Sub_Add", "Mul_FloorDiv", "Div_Mul", "FloorDiv_Mul", "Mod_Mul")
    ),
    "ReplaceUnaryOperator_USub_UAdd",
    "ReplaceUnaryOperator_Delete_Not",
    "AddNot",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "NumberReplacer",
    "ZeroIterationForLoop",
)  # fmt: skip


_NOTHING = ("None", "False")  # where no value is expected, one is as good as the other
_OBSERVING = ("logger.", "metrics.", "tracing.")
"""Logs and metrics say what happened; no money depends on them, nor on what is written to them."""


class RemoveStatement(Operator):
    """Remove a call, an assignment to a member or `raise`; return None instead of a value."""

    def mutation_positions(self, node):
        if self._replacement(node):
            yield (node.start_pos, node.end_pos)

    def mutate(self, node, index):
        del index
        leaf = parso.parse("pass").children[0]
        leaf.value, leaf.prefix = self._replacement(node), node.get_first_leaf().prefix
        return leaf

    @staticmethod
    def _replacement(node) -> str:
        if node.parent is None or node.parent.type != "simple_stmt":
            return ""
        if node.get_code(include_prefix=False).startswith("super()"):
            return ""  # the class would differ, too
        if node.type == "raise_stmt":
            return "pass"
        if node.type == "return_stmt":
            return "" if node.children[1].get_code().strip() in _NOTHING else "return None"
        if node.type in ("atom_expr", "power", "await_expr") or node.type == "await":
            return "pass"
        if node.type == "expr_stmt":
            target, operator = node.children[0], node.children[1]
            augmented = (
                operator.get_code().strip().endswith("=") and len(operator.get_code().strip()) > 1
            )
            if augmented or (target.type in ("atom_expr", "power") and operator == "="):
                return "pass"
        return ""

    @classmethod
    def examples(cls):
        return ()


def mutations(root: Path, file: str) -> Iterator[Mutation]:
    """Yield every mutation of the functions of a file."""
    source = (root / file).read_text()
    names = _functions(ast.parse(source))
    seen = set()
    for mutated, line in _texts(source):
        found = mutation_of(file, names.get(line, ""), source, mutated)
        if found and found.function and mutated not in seen and _compiles(found):
            seen.add(mutated)
            yield found


def _compiles(mutation: Mutation) -> bool:
    """Return whether the text is still Python; the `*` of parameters is no multiplication."""
    if "//" not in mutation.after:
        return True
    try:
        ast.parse(mutation.mutated)
    except SyntaxError:
        return False
    return True


def _texts(source: str) -> Iterator[tuple[str, int]]:
    """Yield each mutated text and the line of its mutation.

    `cosmic_ray.mutating.mutate_code` parses the file for every mutation, which takes longer than
    the tests. Here the tree is parsed once, and each mutated node is put back as it was.
    """
    operators = [*(get_operator(f"core/{name}")() for name in CORE), RemoveStatement()]
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in ast_nodes(get_ast(source)):
        if _observes(node) or _is_chosen_freely(node) or _is_strict(node):
            continue
        row, column = node.get_start_pos_of_prefix()
        begin = starts[row - 1] + column
        code = node.get_code()
        for operator in operators:
            for index, position in enumerate(list(operator.mutation_positions(node))):
                leaves = [node, *getattr(node, "children", ())]
                values = [(leaf, leaf.value) for leaf in leaves if hasattr(leaf, "value")]
                children = leaves[1:]
                mutant = operator.mutate(node, index)
                text = mutant.get_code() if mutant is not None else ""
                for leaf, value in values:
                    leaf.value = value
                if children:
                    node.children = children
                if node.get_code() != code:
                    raise AssertionError(f"{type(operator).__name__} changed a node for good")
                yield source[:begin] + text + source[begin + len(code) :], position[0][0]


def _observes(node: Any) -> bool:
    """Return whether a node belongs to a statement that only logs or counts."""
    while node is not None and node.type != "simple_stmt":
        node = node.parent
    return node is not None and node.get_code(include_prefix=False).startswith(_OBSERVING)


def _is_chosen_freely(node: Any) -> bool:
    return (
        node.type == "number"
        and node.value.replace("_", "").isdecimal()
        and (int(node.value.replace("_", "")) >= CHOSEN_FREELY)
    )


def _is_strict(node: Any) -> bool:
    """Return whether a node is the `strict` of `zip`, which only guards against other mistakes."""
    return (
        node.type in ("keyword", "name")
        and node.parent is not None
        and node.parent.type == "argument"
        and node.parent.children[0].value == "strict"
    )


def _functions(tree: ast.Module) -> dict[int, str]:
    """Return the qualified name of the innermost function at each line of a body.

    Defaults of parameters are outside, because they are evaluated with the module.
    """
    names: dict[int, str] = {}

    def walk(node: ast.AST, path: tuple[str, ...]) -> None:
        for child in ast.iter_child_nodes(node):
            below = path
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                below = (*path, child.name)
                if not isinstance(child, ast.ClassDef):
                    for line in range(child.body[0].lineno, child.end_lineno + 1):
                        names[line] = ".".join(below)
            walk(child, below)

    walk(tree, ())
    return names


def statement_lines(source: str, line: int) -> range:
    """Return the lines of the statement at a line, without the bodies of a compound statement."""
    found = range(line, line + 1)
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.stmt) or not node.lineno <= line <= node.end_lineno:
            continue
        body = getattr(node, "body", None)
        end = body[0].lineno if body and body[0].lineno > node.lineno else node.end_lineno + 1
        if line < end and node.lineno >= (found.start if len(found) > 1 else 0):
            found = range(node.lineno, max(end, node.lineno + 1))
    return found
