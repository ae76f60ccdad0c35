"""Replace one node of a function's syntax tree, found by a pattern.

A pattern is an expression or a statement of Python. In it `_` matches any expression, a capital
letter matches any expression or name and stands for the same in the replacement, and `...` at the
end of arguments or as a block matches the rest.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from copy import deepcopy

Binding = dict[str, ast.expr | str]


class PlaceMissing(Exception):
    """A function is not there, or a pattern does not match exactly one of its nodes."""


def replace_node(source: str, function: str, pattern: str, replacement: str) -> str:
    """Replace the one node of a function that matches a pattern.

    Args:
        source: of a module.
        function: its qualified name, such as `Clocks.theirs`.
        pattern: what the node looks like.
        replacement: an expression; or statements, where the pattern is a statement.

    Returns:
        The source of the changed module, without comments.

    Raises:
        PlaceMissing: the module has no such function, or the pattern matches no node or several,
            or the replacement uses a name that the module does not define.
    """
    module = ast.parse(source)
    scope = _find_function(module, function)
    shape = _parse_pattern(pattern)
    matches = list(_find_matches(scope, shape))
    if len(matches) != 1:
        raise PlaceMissing(f"`{pattern}` is {len(matches)} times in {function}, not once")
    [(node, binding)] = matches
    if unknown := _names_used(replacement) - binding.keys() - _names_of(module):
        raise PlaceMissing(f"the module does not define {', '.join(sorted(unknown))}")
    statements = _Substitute(binding).visit(ast.parse(replacement)).body
    new = statements if isinstance(shape, ast.stmt) else statements[0].value
    _Replace(node, new).visit(module)
    return ast.unparse(ast.fix_missing_locations(module))


def _find_function(module: ast.Module, name: str) -> ast.AST:
    scope: ast.AST = module
    for part in name.split("."):
        definitions = (
            node
            for node in ast.iter_child_nodes(scope)
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        )
        found = next((node for node in definitions if node.name == part), None)
        if found is None:
            raise PlaceMissing(f"there is no function {name}")
        scope = found
    return scope


def _parse_pattern(pattern: str) -> ast.stmt | ast.expr:
    [statement] = ast.parse(pattern).body
    return statement.value if isinstance(statement, ast.Expr) else statement


def _find_matches(scope: ast.AST, shape: ast.AST) -> Iterator[tuple[ast.AST, Binding]]:
    for node in ast.walk(scope):
        binding: Binding = {}
        if _matches(shape, node, binding):
            yield node, binding


def _matches(shape: object, node: object, binding: Binding) -> bool:
    """Whether a part of a tree has this shape; adds to `binding` what its capital letters match."""
    if isinstance(shape, ast.Name) and isinstance(node, ast.expr):
        if shape.id == "_":
            return True
        if _is_variable(shape.id):
            bound = binding.setdefault(shape.id, node)
            return isinstance(bound, ast.expr) and ast.dump(node) == ast.dump(bound)
    if isinstance(shape, str) and _is_variable(shape) and isinstance(node, str):
        return binding.setdefault(shape, node) == node
    if isinstance(shape, list) and isinstance(node, list):
        if shape and _is_rest(shape[-1]):
            shape, node = shape[:-1], node[: len(shape) - 1]
        return len(shape) == len(node) and all(
            _matches(*pair, binding) for pair in zip(shape, node, strict=True)
        )
    if isinstance(shape, ast.AST) and type(shape) is type(node):
        takes_rest = isinstance(shape, ast.Call) and shape.args and _is_rest(shape.args[-1])
        ignored = {"ctx", "kind", "type_comment"} | ({"keywords"} if takes_rest else set())
        fields = [field for field in shape._fields if field not in ignored]
        return all(
            _matches(getattr(shape, field, None), getattr(node, field, None), binding)
            for field in fields
        )
    return type(shape) is type(node) and shape == node


def _is_variable(name: str) -> bool:
    return len(name) == 1 and name.isupper()


def _is_rest(shape: object) -> bool:
    value = shape.value if isinstance(shape, ast.Expr) else shape
    return isinstance(value, ast.Constant) and value.value is ...


def _names_used(code: str) -> set[str]:
    """The names that code reads and does not define itself."""
    names = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)]
    read, written = (
        {name.id for name in names if isinstance(name.ctx, context)}
        for context in (ast.Load, ast.Store)
    )
    return read - written


def _names_of(module: ast.Module) -> set[str]:
    """All names that a module uses or defines anywhere, and those of Python."""
    nodes = list(ast.walk(module))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    arguments = {node.arg for node in nodes if isinstance(node, ast.arg)}
    return names | arguments | set(dir(builtins))


class _Substitute(ast.NodeTransformer):
    """Puts what the capital letters of a pattern matched into a replacement."""

    def __init__(self, binding: Binding) -> None:
        self._binding = binding

    def visit_Name(self, node: ast.Name) -> ast.AST:
        bound = self._binding.get(node.id)
        return deepcopy(bound) if isinstance(bound, ast.AST) else node


class _Replace(ast.NodeTransformer):
    """Puts other nodes in the place of one."""

    def __init__(self, old: ast.AST, new: ast.AST | list[ast.AST]) -> None:
        self._old, self._new = old, new

    def visit(self, node: ast.AST) -> ast.AST | list[ast.AST]:
        return self._new if node is self._old else self.generic_visit(node)
