"""Set 60 prices for a buyer who minimises cost: the textbook bilevel problem, with HiGHS.

The buyer covers 25 needs from our 60 goods or from a dearer competitor. Among equally good answers
it takes the one that suits us ("optimistic"). theta is what it buys, our loss is minus the revenue.
What is bought jumps from one vertex to the next as prices move: derivatives of theta are zero. The
default sees that in its first differences and goes on with a trust region on the loss.
Needs: pip install "zo-bilevel[lp,baselines,plot]"
"""

import os
import sys

import numpy as np

import zo_bilevel as zb
from zo_bilevel.adapters import LinearProgram

SMALL = os.environ.get("ZO_BILEVEL_EXAMPLE_BUDGET") == "small"
try:
    import highspy  # noqa: F401 - the adapter uses it
except ImportError:
    print('highspy is not installed: pip install "zo-bilevel[lp]"')
    sys.exit(0)

NUM_GOODS, NUM_NEEDS = 60, 25
random = np.random.default_rng(0)
covers = np.hstack([random.uniform(0, 1, (NUM_NEEDS, NUM_GOODS)), np.eye(NUM_NEEDS)])
own_cost = np.concatenate([random.uniform(0, 0.2, NUM_GOODS), np.full(NUM_NEEDS, 3.0)])
goods = np.arange(NUM_GOODS)
buyer = LinearProgram(
    own_cost,
    covers,
    row_lower=1.0,
    upper=2.0,
    cost_parameters={"price": goods},
    leader_cost_parameters={"price": -np.eye(NUM_GOODS + NUM_NEEDS, NUM_GOODS)},
    ties="optimistic",
)
space = zb.Space(price=zb.Real(0, 60, shape=(NUM_GOODS,)))


def loss(bought, phi):
    """Minus the revenue; a torch function, so that its derivatives are exact."""
    return -(phi["price"] * bought[:NUM_GOODS]).sum()


problem = zb.Problem(space, buyer, loss, name="pricing")


def start(seed):
    return {"price": np.random.default_rng(seed).uniform(0, 60, NUM_GOODS)}


def one_price_for_all():
    return [np.full(NUM_GOODS, price) for price in np.linspace(0, 60, 121)]


def main():
    methods = {
        "zo_bilevel": zb.DefaultMethod(),
        "nevergrad:CMA": zb.Nevergrad("CMA"),
        "nevergrad:OnePlusOne": zb.Nevergrad("OnePlusOne"),
        "nevergrad:Cobyla": zb.Nevergrad("Cobyla"),
    }
    solves, seeds = (100, range(3)) if SMALL else (300, range(5))
    comparison = zb.compare(problem, methods, max_solves=solves, seeds=seeds, initial=start)
    same = [loss(buyer({"price": price}), {"price": price}) for price in one_price_for_all()]
    print(f"the best single price for all 60 goods gives {min(same):.2f} (121 solves on a grid)\n")
    print(comparison.table())
    print("picture:", comparison.plot("pricing.png"))


if __name__ == "__main__":
    main()
