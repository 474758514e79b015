"""Inequalities as people write them, read without running anything: `0.5 * a + k[0] < b`."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any, Final, final

import numpy as np

from zo_bilevel.problem.expression import Expression
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, unknown_name_message

BELOW: Final = (ast.Lt, ast.LtE)
ABOVE: Final = (ast.Gt, ast.GtE)


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
