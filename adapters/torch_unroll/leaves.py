"""Pytrees of tensors: what moves, what does not, and what a step may not change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import torch
from torch.utils import _pytree as pytree

from zo_bilevel.support.errors import InputError

Tree: TypeAlias = Any
"""A pytree of tensors: dicts, lists, tuples, named tuples of them."""


def path_text(path: Sequence[Any]) -> str:
    """A leaf's place as text: keys and positions joined by "/"."""
    parts = [getattr(key, "key", getattr(key, "idx", getattr(key, "name", key))) for key in path]
    return "/".join(str(part) for part in parts)


def leaf_names(tree: Tree) -> list[str]:
    """Names of the leaves in order; `[""]` for a bare tensor."""
    return [path_text(path) for path, _ in pytree.tree_flatten_with_path(tree)[0]]


@final
@dataclass(frozen=True, slots=True)
class Leaves:
    """A pytree taken apart.

    Args:
        moving: Floating-point leaves, those with a derivative.
        still: All other leaves.
        is_moving: For each leaf in order, whether it is one of `moving`.
        structure: Puts them together again.
    """

    moving: list[torch.Tensor]
    still: list[torch.Tensor]
    is_moving: tuple[bool, ...]
    structure: pytree.TreeSpec

    @property
    def all(self) -> list[torch.Tensor]:
        """Every leaf in order."""
        moving, still = iter(self.moving), iter(self.still)
        return [next(moving) if moves else next(still) for moves in self.is_moving]

    @property
    def tree(self) -> Tree:
        """The pytree."""
        return pytree.tree_unflatten(self.all, self.structure)

    def with_leaves(
        self, moving: Sequence[torch.Tensor], still: Sequence[torch.Tensor] | None = None
    ) -> Leaves:
        """The same structure with other leaves."""
        kept = self.still if still is None else list(still)
        return Leaves(list(moving), kept, self.is_moving, self.structure)

    def detached(self) -> Leaves:
        """The same numbers, apart from any graph."""
        return self.with_leaves(
            [leaf.detach() for leaf in self.moving], [leaf.detach() for leaf in self.still]
        )

    def is_finite(self) -> bool:
        """Whether every number is finite."""
        numbers = (leaf for leaf in self.all if not _is_exact(leaf))
        return all(bool(torch.isfinite(leaf).all()) for leaf in numbers)


def _is_exact(leaf: torch.Tensor) -> bool:
    return not (leaf.dtype.is_floating_point or leaf.dtype.is_complex)


def take_apart(tree: Tree, what: str, *, may_be_complex: bool = False) -> Leaves:
    """Split a pytree into its leaves.

    Args:
        tree: A pytree of tensors.
        what: Who returned it, for the message ("init", "step 3").
        may_be_complex: Whether complex leaves pass, as `still` ones: they would have derivatives.

    Raises:
        InputError: If a leaf is no tensor or complex, or there is none.
    """
    leaves, structure = pytree.tree_flatten(tree)
    for position, leaf in enumerate(leaves):
        is_tensor = isinstance(leaf, torch.Tensor)
        if not is_tensor or (leaf.dtype.is_complex and not may_be_complex):
            _refuse_leaf(tree, position, leaf, what)
    if all(_is_exact(leaf) for leaf in leaves):
        raise InputError(f"{what} must return at least one floating-point tensor, got none")
    return _sorted_out(leaves, structure)


def _refuse_leaf(tree: Tree, position: int, leaf: Any, what: str) -> None:  # noqa: ANN401
    name = leaf_names(tree)[position]
    place = f" at {name!r}" if name else ""
    if not isinstance(leaf, torch.Tensor):
        raise InputError(
            f"{what} must return a pytree of tensors, got {type(leaf).__name__}{place}"
        )
    raise InputError(
        f"{what} must return real tensors, got {leaf.dtype}{place}; keep it as "
        "torch.view_as_real(...) and use torch.view_as_complex inside a step"
    )


def _sorted_out(leaves: Sequence[torch.Tensor], structure: pytree.TreeSpec) -> Leaves:
    is_moving = tuple(leaf.dtype.is_floating_point for leaf in leaves)
    moving = [leaf for leaf, moves in zip(leaves, is_moving, strict=True) if moves]
    still = [leaf for leaf, moves in zip(leaves, is_moving, strict=True) if not moves]
    return Leaves(moving, still, is_moving, structure)


def arranged(before: Leaves, after: Leaves, t: int) -> Leaves:
    """Theta after a step, its dicts in the order and of the type of those that went in.

    Raises:
        InputError: If the step gave theta another structure, shape or dtype, naming the leaf,
            what it was and what it became.
    """
    if before.structure != after.structure:
        after = _in_order_of(before, after)
    if before.structure != after.structure:
        raise InputError(f"step {t} changed {_change_of_structure(before.tree, after.tree)}")
    for position, (old, new) in enumerate(zip(before.all, after.all, strict=True)):
        if old.shape != new.shape or old.dtype != new.dtype:
            name = leaf_names(before.tree)[position] or "theta"
            raise InputError(
                f"step {t} changed {name!r} from {tuple(old.shape)} {old.dtype} "
                f"to {tuple(new.shape)} {new.dtype}"
            )
    return after


def _in_order_of(before: Leaves, after: Leaves) -> Leaves:
    try:
        parts = before.structure.flatten_up_to(after.tree)
    except ValueError:
        return after
    leaves, structure = pytree.tree_flatten(pytree.tree_unflatten(parts, before.structure))
    if structure != before.structure:
        return after
    return _sorted_out(leaves, structure)


def _change_of_structure(old: Tree, new: Tree) -> str:
    if leaf_names(old) != leaf_names(new):
        return f"the structure of theta from leaves {leaf_names(old)} to {leaf_names(new)}"
    kinds = _first_other_type(old, new) or ("one container", "another")
    return f"the structure of theta from {kinds[0]} to {kinds[1]} around leaves {leaf_names(old)}"


def _first_other_type(old: Tree, new: Tree) -> tuple[str, str] | None:
    if type(old) is not type(new):
        return type(old).__name__, type(new).__name__
    for pair in zip(_children(old), _children(new), strict=False):
        if found := _first_other_type(*pair):
            return found
    return None


def _children(tree: Tree) -> list[Tree]:
    if isinstance(tree, torch.Tensor):
        return []
    children: list[Tree] = pytree.tree_leaves(tree, is_leaf=lambda node: node is not tree)
    return children


def check_not_written(before: Leaves, versions: Sequence[int], t: int) -> None:
    """Refuse a step that wrote into the theta it was given; `InputError` naming the leaf."""
    for position, leaf in enumerate(before.all):
        if leaf._version != versions[position]:
            refuse_in_place(before, position, t)


def refuse_in_place(before: Leaves, position: int, t: int) -> None:
    """Say which leaf a step wrote to; `InputError` always."""
    name = leaf_names(before.tree)[position] or "theta"
    raise InputError(
        f"step {t} changed {name!r} in place; it must return new tensors (theta - rate * "
        "gradient, not theta -= rate * gradient)"
    )


def leave(tree: Tree, what: str) -> Any:  # noqa: ANN401 - tensor or dict of tensors
    """What an inner solver returns: the tensor itself, or tensors by name.

    Returns:
        A tensor, or a dict whose names are the places of nested leaves joined by "/". Empty
        leaves are left out.

    Raises:
        InputError: If a leaf is complex, two have one name, or all are empty.
    """
    names = leaf_names(tree)
    named = dict(zip(names, take_apart(tree, what).all, strict=True))
    if len(named) < len(names):
        raise InputError(f"{what} must give each leaf a name of its own, got {names}")
    filled = {name: leaf for name, leaf in named.items() if leaf.numel()}
    if not filled:
        raise InputError(f"{what} must return at least one number, got only empty tensors")
    return tree if isinstance(tree, torch.Tensor) else filled


def enter(theta: Any, like: Leaves) -> Tree:  # noqa: ANN401 - array, tensor, or dict of them
    """Undo `leave`: the user's pytree, in its dtypes and on its device, differentiably."""
    parts = list(theta.values()) if isinstance(theta, Mapping) else [theta]
    leaves = like.all
    filled = [position for position, leaf in enumerate(leaves) if leaf.numel()]
    for position, part in zip(filled, parts, strict=True):
        old = leaves[position]
        leaves[position] = torch.as_tensor(part).to(device=old.device, dtype=old.dtype)
    return pytree.tree_unflatten(leaves, like.structure)
