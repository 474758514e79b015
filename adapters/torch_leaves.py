"""Pytrees of tensors: what moves, what does not, and what a step may not change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import torch
from torch.utils import _pytree as pytree

from zo_bilevel.errors import InputError

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
        """Whether every moving number is finite."""
        return all(bool(torch.isfinite(leaf).all()) for leaf in self.moving)


def take_apart(tree: Tree, what: str) -> Leaves:
    """Split a pytree into its leaves.

    Args:
        tree: A pytree of tensors.
        what: Who returned it, for the message ("init", "step 3").

    Returns:
        Its leaves.

    Raises:
        InputError: If a leaf is no tensor, or there is none.
    """
    leaves, structure = pytree.tree_flatten(tree)
    for name, leaf in zip(leaf_names(tree), leaves, strict=True):
        if not isinstance(leaf, torch.Tensor):
            place = f" at {name!r}" if name else ""
            raise InputError(
                f"{what} must return a pytree of tensors, got {type(leaf).__name__}{place}"
            )
    is_moving = tuple(leaf.dtype.is_floating_point for leaf in leaves)
    if not any(is_moving):
        raise InputError(f"{what} must return at least one floating-point tensor, got none")
    moving = [leaf for leaf, moves in zip(leaves, is_moving, strict=True) if moves]
    still = [leaf for leaf, moves in zip(leaves, is_moving, strict=True) if not moves]
    return Leaves(moving, still, is_moving, structure)


def check_unchanged(before: Leaves, after: Leaves, t: int) -> None:
    """Refuse a step that gives theta another structure, shape or dtype.

    Args:
        before: Theta that went in.
        after: Theta that came out.
        t: The step, from 0.

    Raises:
        InputError: Naming the leaf, what it was and what it became.
    """
    if before.structure != after.structure:
        raise InputError(
            f"step {t} changed the structure of theta from leaves {leaf_names(before.tree)} "
            f"to {leaf_names(after.tree)}"
        )
    for position, (old, new) in enumerate(zip(before.all, after.all, strict=True)):
        if old.shape != new.shape or old.dtype != new.dtype:
            name = leaf_names(before.tree)[position] or "theta"
            raise InputError(
                f"step {t} changed {name!r} from {tuple(old.shape)} {old.dtype} "
                f"to {tuple(new.shape)} {new.dtype}"
            )


def check_not_written(before: Leaves, versions: Sequence[int], t: int) -> None:
    """Refuse a step that wrote into the theta it was given.

    Args:
        before: Theta that went in.
        versions: How often each leaf had been written to by then.
        t: The step, from 0.

    Raises:
        InputError: Naming the leaf.
    """
    for position, leaf in enumerate(before.all):
        if leaf._version != versions[position]:
            refuse_in_place(before, position, t)


def refuse_in_place(before: Leaves, position: int, t: int) -> None:
    """Say which leaf a step wrote to.

    Raises:
        InputError: Always.
    """
    name = leaf_names(before.tree)[position] or "theta"
    raise InputError(
        f"step {t} changed {name!r} in place; it must return new tensors (theta - rate * "
        "gradient, not theta -= rate * gradient)"
    )


def leave(tree: Tree, what: str) -> Any:  # noqa: ANN401 - tensor or dict of tensors
    """What an inner solver returns: the tensor itself, or tensors by name.

    Args:
        tree: A pytree of tensors.
        what: Who returned it, for the message.

    Returns:
        A tensor, or a dict whose names are the places of nested leaves joined by "/".
    """
    leaves = take_apart(tree, what)
    if isinstance(tree, torch.Tensor):
        return tree
    return dict(zip(leaf_names(tree), leaves.all, strict=True))


def enter(theta: Any, like: Leaves) -> Tree:  # noqa: ANN401 - array, tensor, or dict of them
    """Undo `leave`: the user's pytree, in its dtypes and on its device, differentiably.

    Args:
        theta: A tensor, array or number, or a dict of them.
        like: The pytree as it once was.
    """
    parts = list(theta.values()) if isinstance(theta, Mapping) else [theta]
    leaves = [
        torch.as_tensor(part).to(device=old.device, dtype=old.dtype)
        for part, old in zip(parts, like.all, strict=True)
    ]
    return pytree.tree_unflatten(leaves, like.structure)
