"""Torch's words about what it cannot differentiate, turned into what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from zo_bilevel.support.errors import InnerSolverError

NO_FORWARD = re.compile(r"Trying to use forward AD with (\S+) that does not support it")
NO_SECOND = re.compile(r"derivative for '?(?:aten::)?(\S+?)'? is not implemented")
NO_BATCHING = re.compile(
    r"(?:Batching rule not implemented for|vmap: we do not yet support) "
    r"(?:aten::)?(\S+?)[;,.]?(?:\s|$)"
)
NO_SETUP_CONTEXT = re.compile(r"autograd\.Function .*override the setup_context")
NO_FUNCTION_RULE = re.compile(
    r"tried to vmap over (\w+), but|implement the jvp function for custom autograd\.Function"
)
NO_GRAPH = re.compile(
    r"attempting to call Tensor\.requires_grad_\(\)|does not require grad and does not have a grad"
)
IN_PLACE = re.compile(r"in-?place", re.IGNORECASE)


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Say what to do about an operation that torch cannot differentiate.

    Raises:
        InnerSolverError: Naming the operation.

    Example:
        >>> with explained("step 3"):
        ...     raise RuntimeError("derivative for aten::_cdist_backward is not implemented")
        Traceback (most recent call last):
        zo_bilevel.support.errors.InnerSolverError: step 3 uses _cdist_backward, ...
    """
    try:
        yield
    except (NotImplementedError, RuntimeError) as error:
        if isinstance(error, InnerSolverError):
            raise
        advice = _of_operation(str(error)) or _of_function(str(error)) or _of_writing(str(error))
        if advice:
            raise InnerSolverError(f"{where} {advice}") from error
        raise


def _of_operation(text: str) -> str:
    if found := NO_FORWARD.search(text):
        return (
            f"uses {found[1]}, which has no forward-mode derivative; {_instead_of(found[1])}, "
            "or try ReverseUnroll, or use FG2UZO, which needs no derivative of it"
        )
    if found := NO_SECOND.search(text):
        return (
            f"uses {found[1]}, which has no derivative (a gradient taken inside a step is "
            f"differentiated once more); {_instead_of(found[1])}, or use FG2UZO, which needs "
            "only the step's own gradient"
        )
    if found := NO_BATCHING.search(text):
        return f"uses {found[1]}, which cannot run on several tangents at once; use FG2U(chunk=1)"
    return ""


def _instead_of(operation: str) -> str:
    if "attention" in operation:
        return (
            "run it inside torch.nn.attention.sdpa_kernel(SDPBackend.MATH), or load a "
            "transformer with attn_implementation='eager'"
        )
    return "write the operation out"


def _of_function(text: str) -> str:
    if NO_SETUP_CONTEXT.search(text):
        return (
            "uses a torch.autograd.Function without setup_context, which torch.func needs; give "
            "it one, for FG2U also jvp and generate_vmap_rule = True; outside torch.func.grad "
            "ReverseUnroll and FG2UZO need none of it"
        )
    if found := NO_FUNCTION_RULE.search(text):
        return (
            f"uses a torch.autograd.Function{f', {found[1]},' if found[1] else ''} without a "
            "forward-mode derivative; give it jvp and generate_vmap_rule = True, or use "
            "ReverseUnroll or FG2UZO"
        )
    return ""


def _of_writing(text: str) -> str:
    if NO_GRAPH.search(text):
        return (
            "takes a gradient with torch.autograd or backward(), which cannot be differentiated "
            "forward; use torch.func.grad"
        )
    if "support saved tensor hooks" in text:
        return (
            "uses torch.utils.checkpoint, or other hooks on saved tensors, which torch.func "
            "refuses; call the function itself, as FG2U keeps no graph, or use ReverseUnroll or "
            "FG2UZO"
        )
    if "mutate a captured Tensor" in text:
        return (
            "writes in place into a tensor that it was not given (a module's buffer, say), which "
            "torch.func refuses; put that part into eval mode, or return what it writes"
        )
    if IN_PLACE.search(text) and "vmap" in text:
        return (
            f"writes into a tensor in place, which cannot carry tangents ({text.splitlines()[0]})"
        )
    return ""
