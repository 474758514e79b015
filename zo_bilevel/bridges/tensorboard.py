"""A callback that writes every solve to TensorBoard."""

import math
import os
import re
from pathlib import Path
from typing import Any, Self, final

from zo_bilevel.run.result import Record
from zo_bilevel.support.packages import import_optional


@final
class TensorBoard:
    """Writes loss, best loss, seconds, cost and failures against solves.

    Args:
        folder: Where TensorBoard looks (`tensorboard --logdir folder`); made when missing.

    Raises:
        MissingPackageError: If tensorboard is not installed.

    Example:
        `with TensorBoard("logs") as board: minimize(problem, callback=board)`, or
        `compare(problem, methods, max_solves=100, callback=board.compare)`.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        import_optional("tensorboard", "TensorBoard", "integrations")
        self._module = import_optional(
            "torch.utils.tensorboard", "TensorBoard", "integrations", "tensorboard"
        )
        self.folder = Path(folder)
        self._writers: dict[str, Any] = {}
        self._failures: dict[str, int] = {}

    def __call__(self, record: Record) -> None:
        """Write one solve of a run; the `callback` of `minimize`."""
        self._write("", record)

    def compare(self, label: str, seed: int, record: Record) -> None:
        """Write one solve of a comparison; the `callback` of `compare`.

        Args:
            label: Of the method; each method and seed is a run of its own in TensorBoard.
            seed: Of the run.
            record: The solve.
        """
        self._write(f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', label)}-seed-{seed}", record)

    def _write(self, name: str, record: Record) -> None:
        if name not in self._writers:
            self._writers[name] = self._module.SummaryWriter(str(self.folder / name))
        failed = self._failures.get(name, 0) + (record.status != "ok")
        self._failures[name] = failed
        values = {
            "loss": record.loss,
            "best loss": record.best_loss,
            "seconds": record.seconds,
            "cost": record.cost,
            "failed solves": failed,
        }
        for title, value in values.items():
            if math.isfinite(value):  # TensorBoard draws nothing else
                self._writers[name].add_scalar(title, value, record.solve)

    def close(self) -> None:
        """Write what is left to disk."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
