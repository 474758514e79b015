"""Whether losses are noisy, and whether the noise drowns the steps of a trust region."""

from typing import final

import numpy as np

from zo_bilevel.methods.trust_region.region_model import RegionModel
from zo_bilevel.methods.trust_region.region_proposals import Proposals, Trial

MOST_FAILED_SHRINKS = 2
"""So many looks closer without a good step, where there is noise, are the noise's fault."""
DROWNED_SHARE, DROWNED_SHARE_WIDE = 0.05, 0.01
"""Noise drowns a step when it is more than this share of the predicted gain; less in wide rounds,
whose best loss is the luckiest of many."""


@final
class RegionNoise:
    """Asks for solves beside the best point, and judges what they say.

    Attributes:
        failed_shrinks: Looks closer since the last good step, where there is noise.
    """

    def __init__(self, model: RegionModel) -> None:
        self._model = model
        self._probed = np.inf
        self._since_probe = self.failed_shrinks = 0
        self._differences: list[float] = []

    def joins_round(self) -> bool:
        """Whether a wide round brings a probe: the first one does, and all under noise."""
        joins = self._probed > 0.0 or self._model.noise > 0.0
        self._probed = min(self._probed, -1.0)
        return joins

    def is_due(self) -> bool:
        """Whether to probe before a look closer."""
        model = self._model
        due = abs(model.centre()[1]) < self._probed or (model.noise > 0.0 and self._since_probe)
        if model.size > 1 and due and model.has_slopes:
            self._probed, self._since_probe = -1.0, 0
            return True
        self._since_probe += 1
        return False

    def drowns(self, step: Trial, *, is_wide: bool = False) -> bool:
        """Whether what the step may gain is lost in the noise.

        Args:
            step: The best one.
            is_wide: In a wide round, else before a look closer.
        """
        noise, share = self._model.noise, DROWNED_SHARE_WIDE if is_wide else DROWNED_SHARE
        hopeless = not is_wide and noise > 0.0 and self.failed_shrinks >= MOST_FAILED_SHRINKS
        self.failed_shrinks += not is_wide
        return hopeless or noise > max(share * step.gain, 0.0)

    def judge(self, probe: Trial, value: float, proposals: Proposals) -> bool:
        """Note the loss of a probe; give back whether it shows noise."""
        if not self._model.has_slopes:
            self._probed = np.inf  # too early: ask again
            return False
        difference = proposals.unexplained(probe, value)
        if difference > 0.0:
            self._differences.append(difference)
            self._model.noise = float(np.sqrt(np.mean(np.square(self._differences[-4:]))))
            self._probed = abs(value) / 3.0
        return difference > 0.0
