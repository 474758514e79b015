"""What can be wrong with an inner loop, found early and said by name."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from zo_bilevel.adapters.torch_unroll.leaves import Leaves, refuse_in_place
from zo_bilevel.adapters.torch_unroll.run import Phi, Run
from zo_bilevel.support.errors import InputError, InvalidSolutionError, unknown_name_message


def rehearse(run: Run) -> None:
    """Run `init` and the first step once, and refuse a step that writes into its argument.

    Raises:
        InputError: Naming the leaf that was written to, or the name in `allow_unreached` that
            is no parameter.
    """
    if "plain" in run.loop.checked:
        return
    for name in sorted(run.loop.allow_unreached - set(run.phi)):
        message = unknown_name_message("parameter", name, run.phi)
        raise InputError(f"allow_unreached: {message}")
    with torch.no_grad(), run.random():
        before = run.initial(run.phi).detached()
        copies = [leaf.clone() for leaf in before.all]
        versions = [leaf._version for leaf in before.all]
        try:
            run.next(before, run.phi, 0, run.batch(0))
        finally:
            _refuse_in_place(before, copies, versions)
    run.loop.checked |= {"plain"}


def _refuse_in_place(before: Leaves, copies: list[torch.Tensor], versions: list[int]) -> None:
    for position, (leaf, copy) in enumerate(zip(before.all, copies, strict=True)):
        same = leaf.shape == copy.shape and torch.allclose(
            leaf, copy, rtol=0, atol=0, equal_nan=True
        )
        if leaf._version != versions[position] or not same:
            refuse_in_place(before, position, 0)


def draws(run: Run) -> bool:
    """Whether `init`, the first step, the last one or `read` draws random numbers of the solve.

    Those of numpy's and Python's own generators count too; one that the loop hides does not. An
    `init` that takes the seed is asked with two: it may make no use of it.
    """
    if run.loop.batches is not None:
        return True
    last = run.loop.num_steps - 1
    device = torch.device(run.loop.device)
    try:
        with torch.no_grad(), run.random() as position:
            before, start = _generators(device), run.initial(run.phi)
            if run.loop.seeds_init:
                other = Run(run.loop, run.phi, run.seed + 1, is_plain=True).initial(run.phi)
                if not all(torch.equal(*pair) for pair in zip(start.all, other.all, strict=True)):
                    return True
            first = run.next(start, run.phi, 0, None)
            run.observed(run.next(first, run.phi, last, None) if last else first, run.phi)
            return bool(position.draws) or _generators(device) != before
    except Exception:  # noqa: BLE001 - the loop itself, which is next, says what is wrong
        return True


def _generators(device: torch.device) -> list[Any]:
    states: list[Any] = [torch.get_rng_state().tolist(), random.getstate()]
    of_numpy: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    states += [of_numpy["state"]["key"].tolist(), of_numpy["state"]["pos"]]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device).tolist())
    return states


def check_finite(run: Run, found: Leaves) -> None:
    """Refuse an inner solution that is not finite; `InvalidSolutionError` naming the step."""
    if not found.is_finite():
        raise InvalidSolutionError(
            f"the inner loop is not finite: it began at {_first_bad_step(run)} of "
            f"{run.loop.num_steps} steps"
        )


def _first_bad_step(run: Run) -> str:
    with torch.no_grad(), run.random():
        theta = run.initial(run.phi)
        if not theta.is_finite():
            return "init, before the first"
        for t in range(run.loop.num_steps):
            theta = run.next(theta, run.phi, t, run.batch(t))
            if not theta.is_finite():
                return f"step {t}"
    return "read, after the last"


def structurally_unreached(run: Run, names: list[str]) -> list[str]:
    """Parameters that neither `init`, nor the first, nor the last step depends on.

    The last step gets the state after the first, which spares the steps in between. A step that
    cannot work on it (it counts its calls, say) shows nothing.

    Returns:
        Suspects: a step in between may still use them.
    """
    try:
        return _unreached_by_the_ends(run, names)
    except Exception:  # noqa: BLE001 - the true loop, which is next, says what is wrong
        return names


def _unreached_by_the_ends(run: Run, names: list[str]) -> list[str]:
    last = run.loop.num_steps - 1
    leaves = {name: run.phi[name].detach().requires_grad_() for name in names}
    phi = {**run.phi, **leaves}
    with torch.enable_grad(), run.random():
        first = run.next(run.initial(phi), phi, 0, run.batch(0))
        seen = [*run.observed(first, phi).moving]
        if last > 0:
            seen += run.next(first.detached(), phi, last, run.batch(last)).moving
        sums = [leaf.sum() for leaf in seen if leaf.requires_grad]
        if not sums:
            return names
        grads = torch.autograd.grad(sums, list(leaves.values()), allow_unused=True)
    return [name for name, grad in zip(names, grads, strict=True) if grad is None]


def check_reached(run: Run, names: list[str], is_still: Callable[[Phi, str], bool]) -> None:
    """Refuse parameters that the loop does not depend on; done once a loop.

    Args:
        run: The run.
        names: Parameters with a derivative.
        is_still: Whether theta does not move at all with the parameter named, over all steps.

    Raises:
        InputError: Naming them.
    """
    key = "reached:" + ",".join(names)
    if key in run.loop.checked:
        return
    wanted = [name for name in names if name not in run.loop.allow_unreached]
    suspects = structurally_unreached(run, wanted) if wanted else []
    refuse_unreached([name for name in suspects if is_still(run.phi, name)], "the inner loop")
    run.loop.checked |= {key}


def refuse_unreached(names: list[str], what: str, *, is_whole: bool = True) -> None:
    """Say which parameters have no effect; `InputError` if there are any."""
    if names:
        advice = "use it in init or step (not detached)"
        if not is_whole:
            advice = "use it in step (not detached), take FG2U or ReverseUnroll for all of the loop"
        raise InputError(
            f"{what} does not depend on {' and '.join(repr(name) for name in names)}: the "
            f"hypergradient there would be zero; {advice}, or list it in allow_unreached if only "
            "the outer objective looks at it"
        )
