"""Losses of settings that are random: their means, and how many draws those rest on."""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.support.arrays import FloatArray

MOST_SETTINGS = 300
"""The model is fitted to so many: half of them the best, half the latest."""
COMPRESSED_SHARE = 0.1
"""Of all losses, the highest: brought nearer, so that penalties do not hide the rest."""


@final
class SettingDraws:
    """Every loss seen, by setting."""

    def __init__(self) -> None:
        self._index: dict[bytes, int] = {}
        self._rows: list[FloatArray] = []
        self._of: list[int] = []
        self._losses: list[float] = []

    def add(self, row: FloatArray, loss: float) -> None:
        """Take in one solve; the loss is infinite where it failed."""
        key = row.tobytes()
        if key not in self._index:
            self._index[key] = len(self._rows)
            self._rows.append(row)
        self._of.append(self._index[key])
        self._losses.append(loss)

    def data(self) -> tuple[FloatArray, FloatArray, NDArray[np.intp], float]:
        """Settings `(m, d)`, mean losses `(m,)`, draws of each, and their squares around the means.

        Losses among the highest are compressed: the logarithm of how far they lie above the others.
        """
        losses, of = np.array(self._losses), np.array(self._of)
        finite = np.isfinite(losses)
        losses = np.where(finite, losses, losses[finite].max())
        best, high = float(losses.min()), float(np.quantile(losses, 1 - COMPRESSED_SHARE))
        if high > best:
            height = (losses - best) / (high - best)
            losses = np.where(height > 1.0, 1.0 + np.log(np.maximum(height, 1.0)), height)
        counts = np.bincount(of)
        means = np.bincount(of, losses) / counts
        kept = np.arange(len(counts))
        if len(counts) > MOST_SETTINGS:
            careful = (counts * means + losses.mean()) / (counts + 1)
            best_half = np.argsort(careful, kind="stable")[: MOST_SETTINGS // 2]
            kept = np.unique(np.concatenate([best_half, kept[-MOST_SETTINGS // 2 :]]))
        squares = np.bincount(of, np.square(losses - means[of]))
        rows = np.array(self._rows)[kept]
        return rows, means[kept], counts[kept], float(squares[kept].sum())
