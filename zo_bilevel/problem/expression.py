"""Arithmetic of parameters as text: read once, evaluated without running anything else."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final, final

import numpy as np

from zo_bilevel.support.errors import InputError

BINARY: Final[Mapping[type, Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
UNARY: Final[Mapping[type, Callable[[Any], Any]]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
FUNCTIONS: Final = (
    *("abs", "exp", "log", "log10", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh"),
    *("arcsin", "arccos", "arctan", "minimum", "maximum", "sum", "cumsum"),
)
"""Of numpy and torch alike."""
CONSTANTS: Final = {"pi": np.pi}


@final
class Expression:
    """One formula of named values: numbers, names, `+ - * / **`, brackets, places of arrays.

    Args:
        text: As in Python, "2 * a + sqrt(b)". `FUNCTIONS` are known, and `pi`.

    Raises:
        InputError: If it holds anything else.

    Example:
        >>> Expression("2 * a + field[1]").evaluate({"a": 1.5, "field": np.array([0.0, 4.0])})
        7.0
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self.tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, TypeError, RecursionError) as error:
            raise InputError(f"an expression must be a formula, got {text!r}") from error
        called = {id(n.func) for n in ast.walk(self.tree) if isinstance(n, ast.Call)}
        found = [
            n.id
            for n in ast.walk(self.tree)
            if isinstance(n, ast.Name) and id(n) not in called and n.id not in CONSTANTS
        ]
        self.names: tuple[str, ...] = tuple(dict.fromkeys(found))
        for node in ast.walk(self.tree):
            self._check(node)

    def _check(self, node: ast.AST) -> None:
        known = (ast.Name, ast.Load, ast.BinOp, ast.UnaryOp, ast.Subscript, ast.Tuple)
        is_known = isinstance(node, known) or type(node) in (*BINARY, *UNARY)
        if isinstance(node, ast.Constant):
            is_known = type(node.value) in (int, float)
        if isinstance(node, ast.Call):
            is_known = isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS
            is_known = is_known and not node.keywords
        if not is_known:
            what = ast.unparse(node) if isinstance(node, ast.expr) else type(node).__name__
            raise InputError(
                f"an expression must be a formula of parameters with + - * / ** and "
                f"{', '.join(FUNCTIONS)}, got {what!r} in {self.text!r}"
            )

    def evaluate(self, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - number or array
        """The value, NaN or infinite where the formula has none.

        Args:
            values: By name, numbers, arrays or tensors.

        Raises:
            InputError: If the shapes do not fit, or a value is no number.
        """
        try:
            with np.errstate(all="ignore"):
                found = self._value(self.tree, values)
        except (TypeError, ValueError, IndexError, RuntimeError) as error:
            raise InputError(f"the expression {self.text!r} cannot be computed: {error}") from error
        return found.item() if isinstance(found, np.generic) else found

    def _value(self, node: ast.expr, values: Mapping[str, Any]) -> Any:  # noqa: ANN401
        match node:
            case ast.Constant(value=number):
                return number
            case ast.Name(id=name):
                value = CONSTANTS[name] if name in CONSTANTS else values[name]
                # numpy's own numbers divide by zero without raising
                return np.asarray(value)[()] if isinstance(value, int | float) else value
            case ast.BinOp(left=left, op=sign, right=right):
                return BINARY[type(sign)](self._value(left, values), self._value(right, values))
            case ast.UnaryOp(op=sign, operand=operand):
                return UNARY[type(sign)](self._value(operand, values))
            case ast.Subscript(value=array, slice=place):
                return self._value(array, values)[ast.literal_eval(place)]
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return _called(name, [self._value(argument, values) for argument in arguments])
        raise InputError(f"an expression must be a formula, got {ast.unparse(node)!r}")


def _called(name: str, arguments: list[Any]) -> Any:  # noqa: ANN401 - arrays or tensors
    if any(hasattr(argument, "detach") for argument in arguments):
        import torch

        tensors = [torch.as_tensor(argument) for argument in arguments]
        more = {"dim": 0} if name == "cumsum" else {}
        return getattr(torch, name)(*tensors, **more)
    return getattr(np, name)(*arguments)
