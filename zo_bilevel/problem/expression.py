"""Formulas and inequalities of parameters as text: read once, nothing else is run."""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final, final

import numpy as np

from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, unknown_name_message

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
BELOW: Final = (ast.Lt, ast.LtE)
ABOVE: Final = (ast.Gt, ast.GtE)


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


@final
class Inequality:
    """One or more inequalities between formulas, as numbers that are at most 0 where they hold.

    Args:
        text: Formulas of `Expression` with `<`, `<=`, `>` or `>=` between them (`<` means `<=`),
            also chained: `0 <= a - b <= 1`. An array by its name alone stands for each element.

    Raises:
        InputError: If the text is no such thing.

    Attributes:
        names: That occur.

    Example:
        >>> Inequality("a + 2 * b <= 4").values({"a": 1.0, "b": 2.0})
        array([1.])
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            node = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError) as error:
            raise self.refused(f"cannot be read: {error}") from None
        if not isinstance(node, ast.Compare):
            raise self.refused("must hold <=, <, >= or >")
        sides = [node.left, *node.comparators]
        self._differences: list[Expression] = []
        self._numbers: list[float] = []
        for comparison, left, right in zip(node.ops, sides, sides[1:], strict=False):
            if isinstance(comparison, ast.Eq):
                raise self.refused(
                    "is an equation: tie one parameter to the others by zb.Tied, or give a band, "
                    "'-0.01 <= a - b <= 0.01'"
                )
            if not isinstance(comparison, BELOW + ABOVE):
                raise self.refused("must hold <=, <, >= or > only")
            low, high = (left, right) if isinstance(comparison, BELOW) else (right, left)
            self._differences.append(Expression(f"({ast.unparse(low)}) - ({ast.unparse(high)})"))
            self._numbers.append(self._number(low, high))
        self.names = {name for found in self._differences for name in found.names}

    def _number(self, low: ast.expr, high: ast.expr) -> float:
        """The number that is compared with, without its sign; 1 where there is none."""
        one, other = Expression(ast.unparse(low)), Expression(ast.unparse(high))
        if not one.names and not other.names:
            raise self.refused("compares numbers only")
        if one.names and other.names:
            return 1.0
        return abs(float((other if one.names else one).evaluate({}))) or 1.0

    def values(self, named: Mapping[str, Any]) -> FloatArray:
        """By how much each inequality is broken; at most 0 where it holds.

        Raises:
            InputError: If a name is unknown, or the formula cannot be computed.
        """
        return np.concatenate([self._value(found, named) for found in self._differences])

    def relative_values(self, named: Mapping[str, Any]) -> FloatArray:
        """The same in units of the numbers that are compared with."""
        pairs = zip(self._differences, self._numbers, strict=True)
        return np.concatenate([self._value(found, named) / number for found, number in pairs])

    def _value(self, found: Expression, named: Mapping[str, Any]) -> FloatArray:
        for name in found.names:
            if name not in named:
                raise self.refused("has an " + unknown_name_message("name", name, named))
        try:
            return np.ravel(np.asarray(found.evaluate(named), dtype=np.float64))
        except (InputError, TypeError, ValueError) as error:
            raise self.refused(f"cannot be computed: {error}") from None

    def check_linear(self) -> None:
        """Refuse what is not linear in its names; `InputError` naming the part."""
        for found in self._differences:
            self._degree(found.tree)

    def _degree(self, node: ast.expr) -> int:
        """0 for numbers, 1 for what is linear in names."""
        match node:
            case ast.BinOp(left=left, op=sign, right=right):
                degrees = self._degree(left), self._degree(right)
                if isinstance(sign, ast.Add | ast.Sub):
                    return max(degrees)
                is_linear = sum(degrees) < 2 if isinstance(sign, ast.Mult) else degrees[1] == 0
                if is_linear and (isinstance(sign, ast.Mult | ast.Div) or sum(degrees) == 0):
                    return sum(degrees)
            case ast.UnaryOp(operand=inner) | ast.Call(func=ast.Name(id="sum"), args=[inner]):
                return self._degree(inner)
            case ast.Subscript(value=inner):
                return self._degree(inner)
            case _:
                if not Expression(ast.unparse(node)).names:
                    return 0
                if isinstance(node, ast.Name):
                    return 1
        raise self.refused(
            f"is not linear in {ast.unparse(node)!r}: give a function of phi instead"
        )

    def refused(self, why: str) -> InputError:
        """An error that names the text."""
        return InputError(f"constraint {self.text!r} {why}")
