"""A program of which all options are decided: what an option leaves out is not in its text."""

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_INDENT = 4


def decided(program: str, options: Mapping[str, Any], constants: Mapping[str, Any], docstring: str) -> str:
    """The text of a program with its options decided.

    Args:
        program: Python. An `if` whose condition asks only for options, by `==`, `!=`, `not` or the name alone, becomes
            the branch that holds; comments above the first statement of a branch are not kept.
        options: values of the names that are asked for, whose assignments are left out.
        constants: values of other names that the program assigns at its top, a line each. Names that nothing uses any
            more are left out, and so are imports.
        docstring: of the result, in the place of the program's.
    """
    lines = program.split("\n")
    tree = ast.parse(program)
    dropped, shifts = set[int](), dict[int, int]()
    for node in tree.body:
        if isinstance(node, ast.Assign) and _name(node) in options:
            dropped.add(node.lineno)
        elif isinstance(node, ast.Assign) and _name(node) in constants:
            comment = re.search(r"  # .*", lines[node.lineno - 1])
            lines[node.lineno - 1] = (
                f"{_name(node)} = {_literal(constants[_name(node)])}{comment[0] if comment else ''}"
            )
    _decide(tree.body, options, dropped, shifts)
    kept = [line[_INDENT * shifts.get(number, 0) :] for number, line in enumerate(lines, 1) if number not in dropped]
    return _spaced(_without_unused("\n".join(kept)), docstring)


def _name(node: ast.Assign) -> str:
    return node.targets[0].id if isinstance(node.targets[0], ast.Name) else ""


def _literal(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _decide(
    statements: Sequence[ast.stmt], options: Mapping[str, Any], dropped: set[int], shifts: dict[int, int]
) -> None:
    """Notes which lines are dropped, and by how many levels the others come forward."""
    for node in statements:
        if (
            isinstance(node, ast.If)
            and {n.id for n in ast.walk(node.test) if isinstance(n, ast.Name)} <= options.keys()
        ):
            branch = node.body if _holds(node.test, options) else node.orelse
            kept: range | set[int] = set()
            if branch:
                is_elif = len(branch) == 1 and isinstance(branch[0], ast.If) and branch[0].col_offset == node.col_offset
                kept = range(_first_line(branch[0]), (branch[-1].end_lineno or 0) + 1)
                if not is_elif:
                    for line in kept:
                        shifts[line] = shifts.get(line, 0) + 1
            dropped.update(set(range(node.lineno, (node.end_lineno or 0) + 1)) - set(kept))
            _decide(branch, options, dropped, shifts)
        else:
            for name in ("body", "orelse"):
                _decide(getattr(node, name, []), options, dropped, shifts)


def _first_line(node: ast.stmt) -> int:
    return min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])


def _holds(test: ast.expr, options: Mapping[str, Any]) -> bool:
    if isinstance(test, ast.Name):
        return bool(options[test.id])
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return not _holds(test.operand, options)
    if isinstance(test, ast.Compare) and isinstance(test.left, ast.Name):
        [operator], [other] = test.ops, test.comparators
        if isinstance(other, ast.Constant) and isinstance(operator, (ast.Eq, ast.NotEq)):
            return (options[test.left.id] == other.value) == isinstance(operator, ast.Eq)
    raise ValueError(f"`{ast.unparse(test)}` cannot be decided")


def _without_unused(program: str) -> str:
    """The program without imports and constants at its top that nothing uses."""
    tree, lines = ast.parse(program), program.split("\n")
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    unused = {node.lineno for node in tree.body if (names := set(_made(node))) and not names & used}
    return "\n".join(line for number, line in enumerate(lines, 1) if number not in unused)


def _made(node: ast.stmt) -> Iterator[str]:
    """The names that an import or an assignment makes."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from (alias.asname or alias.name for alias in node.names)
    elif isinstance(node, ast.Assign):
        yield from (name.id for name in ast.walk(node.targets[0]) if isinstance(name, ast.Name))


def _spaced(program: str, docstring: str) -> str:
    """The program with another docstring, and blank lines where black sets them."""
    body = "\n".join(program.split("\n")[ast.parse(program).body[0].end_lineno :])
    body = re.sub(r"\n{3,}", "\n\n", body)
    body = re.sub(r"(:\n)\n(?= )", r"\1", body)  # below the head of a class whose first method was in a branch
    body = re.sub(r'(?m)^( *)("""[^\n]*""")\n(?= *(?:def|class|@))', r"\1\2\n\n", body)
    body = re.sub(r"\n+(?=\n(?:class|def|@|if) ?)", "\n\n", body)
    body = re.sub(r"(\n .*)\n+(?=[^\s)\]}])", r"\1\n\n\n", body)
    return "{}\n\n{}\n".format(docstring.rstrip("\n"), body.strip("\n"))
