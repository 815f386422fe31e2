"""Small changes of a module, each of which its tests should see: see `mutants.py`."""

import ast
import copy
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple


class Mutant(NamedTuple):
    """One change: the bytes [start, end) of a module become `new`."""

    module: str
    name: str  # where it is and what it is, the same wherever the line moves
    lines: range  # of the statement
    start: int
    end: int
    new: str

    def applied(self, source: bytes) -> bytes:
        """The module with the fault in it."""
        return source[: self.start] + self.new.encode() + source[self.end :]


_COMPARED = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
_COMPUTED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
_NAMED = (
    ("min", "max"), ("minimum", "maximum"), ("argmin", "argmax"), ("floor", "ceil"),
    ("sum", "mean"), ("any", "all"), ("zeros", "ones"), ("zeros_like", "ones_like"),
    ("pre", "post"), ("x_pre", "x_post"), ("n_pre", "n_post"), ("n_in", "n_out"),
    ("G_min", "G_max"), ("lower", "upper"), ("up", "down"), ("n_up", "n_down"),
    ("plus", "minus"), ("apply", "apply_t"), ("val", "test"), ("lr", "lr_readout"),
    ("gain_in", "gain_forward"), ("sigma_d2d", "sigma_c2c"), ("hop_ew", "hop_ns"),
    ("hops_ew", "hops_ns"), ("tau_mem", "tau_syn"), ("tau_plus", "tau_minus"),
)  # fmt: skip
_OTHER = dict(_NAMED) | {b: a for a, b in _NAMED}
_SYMMETRIC = {
    "maximum", "minimum", "max", "min", "array_equal", "hypot", "logaddexp", "gcd", "lcm", "clip",
    "promote_types", "swapaxes",
}  # fmt: skip
_LEFT_ALONE = {"static", "strict"}  # keywords that change structure, or only what is checked


def mutants(module: str, source: bytes) -> list[Mutant]:
    """All faults of a module, in the order of its lines."""
    offsets = [0, *itertools.accumulate(len(line) for line in source.splitlines(keepends=True))]
    tree = ast.parse(source)
    imported = {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    found = {}
    for node, new, within, statement in _faults(tree, imported, (), tree.body[0]):
        start = offsets[node.lineno - 1] + node.col_offset
        end = offsets[node.end_lineno - 1] + node.end_col_offset
        head, tail = offsets[node.lineno - 1], offsets[node.end_lineno]
        before, old, after = source[head:start], source[start:end], source[end:tail]
        shown = ast.unparse(new)
        line = f"{before.decode()}{{{old.decode()} -> {shown}}}{after.decode()}"
        name = f"{module} {'.'.join(within) or '-'}: {' '.join(line.split())}"
        text = shown if isinstance(new, ast.stmt) else f"({shown})"
        lines = range(statement.lineno, node.end_lineno + 1)
        if ast.unparse(node) != shown:
            found.setdefault(name, Mutant(module, name, lines, start, end, text))
    return sorted(found.values(), key=lambda m: (m.start, m.end))


def _faults(node: ast.AST, imported: set, within: tuple, statement: ast.stmt) -> Iterator[tuple]:
    """(node, what takes its place, names of what it is in, its statement), from `node` down."""
    if isinstance(node, ast.stmt):
        statement = node
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        within = (*within, node.name)
    for new in _instead(node, imported):
        yield node, new, within, statement
    for test in _tests(node):
        if not isinstance(test, ast.Compare) and not _is_not(test):
            yield test, ast.UnaryOp(ast.Not(), test), within, statement
    for child in _inside(node):
        yield from _faults(child, imported, within, statement)


def _inside(node: ast.AST) -> Iterator[ast.AST]:
    """Parts that are calculated: no types, decorators, imports, messages or public names."""
    match node:
        case ast.JoinedStr() | ast.Raise() | ast.Import() | ast.ImportFrom():
            return
        case ast.Assign(targets=[ast.Name(id="__all__")]) | ast.FunctionDef(name="__dir__"):
            return
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            skipped = isinstance(child, ast.keyword) and child.arg in _LEFT_ALONE
            if isinstance(child, ast.AST) and not skipped:
                yield child


def _tests(node: ast.AST) -> list[ast.expr]:
    match node:
        case ast.If() | ast.While() | ast.IfExp():
            return [node.test]
        case ast.comprehension():
            return node.ifs
    return []


def _is_not(node: ast.AST) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)


def _with(node: Any, **changed: Any) -> Any:
    new = copy.copy(node)
    for name, value in changed.items():
        setattr(new, name, value)
    return new


def _instead(node: ast.AST, imported: set) -> Iterator[ast.AST]:
    """What may stand in place of one node."""
    match node:
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                for other in _COMPARED[type(op)]:
                    yield _with(node, ops=[*ops[:i], other(), *ops[i + 1 :]])
        case ast.BinOp() | ast.AugAssign() if type(node.op) in _COMPUTED:
            yield _with(node, op=_COMPUTED[type(node.op)]())
        case ast.BoolOp(op=op):
            yield _with(node, op=ast.And() if isinstance(op, ast.Or) else ast.Or())
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant()):
            return  # the number has faults of its own
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert(), operand=operand):
            yield operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield from (ast.Constant(value + 1), ast.Constant(value - 1))
        case ast.Constant(value=float(value)):
            yield from map(ast.Constant, (2 * value, 0.0) if value else (1.0, -1.0))
        case ast.Name(id=name, ctx=ast.Load()) if name in _OTHER:
            yield _with(node, id=_OTHER[name])
        case ast.Attribute(attr=name, ctx=ast.Load()) if name in _OTHER:
            yield _with(node, attr=_OTHER[name])
        case ast.Call():
            yield from _other_calls(node, imported)
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.Continue() | ast.Break():
            yield ast.Pass()


def _other_calls(node: ast.Call, imported: set) -> Iterator[ast.expr]:
    """Without the call, with an argument left out, with two exchanged, with a `dt` of 1."""
    for i, word in enumerate(node.keywords):
        rest = [*node.keywords[:i], *node.keywords[i + 1 :]]
        if word.arg not in _LEFT_ALONE:
            yield _with(node, keywords=rest)
        if word.arg == "dt":
            yield _with(node, keywords=[*rest, ast.keyword("dt", ast.Constant(1.0))])
    called, values = node.func, [a for a in node.args if not _is_text(a)]
    if isinstance(called, ast.Attribute) and _root(called) not in imported:
        yield called.value
    elif values and not (isinstance(called, ast.Name) and called.id.strip("_")[0].isupper()):
        yield values[0]  # of a class it would be no object at all
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)
    if len(values) > 1 and values == node.args and name not in _SYMMETRIC:
        yield _with(node, args=[values[1], values[0], *values[2:]])


def _is_text(node: ast.expr) -> bool:
    """Names and units in messages; `*arguments` are passed over too."""
    text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return text or isinstance(node, ast.Starred | ast.JoinedStr)


def _root(node: ast.AST) -> str | None:
    """`jax` of `jax.numpy.sum`."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None
