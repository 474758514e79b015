"""Wrap a Fortran program that reads a namelist and writes columns (docs/wrap-your-solver.md).

Needs: gfortran (apt-get install gfortran); pip install "zo-bilevel[command,baselines,plot]"
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

import zo_bilevel as zb
from zo_bilevel.adapters import CommandLine, ReadColumns

SMALL = os.environ.get("ZO_BILEVEL_EXAMPLE_BUDGET") == "small"
if shutil.which("gfortran") is None:
    print("gfortran is not on the PATH: apt-get install gfortran")
    sys.exit(0)
program = Path("decay").absolute()
source = Path(__file__).with_name("decay.f90")
subprocess.run(["gfortran", "-O2", "-o", program, source], check=True)

# --- the ten lines ----------------------------------------------------------------------------
NAMELIST = "&run rate = {{ rate }}, order = {{ order }}, steps = 50 /\n"
simulate = CommandLine(
    [program],
    files={"run.nml": NAMELIST},
    output=ReadColumns("state.dat", columns=1),
    expected_length=51,
    timeout_s=10,
)
space = zb.Space(rate=zb.Log(0.01, 10), order=zb.Real(0.5, 3))
measured = simulate({"rate": 0.8, "order": 1.5})
problem = zb.Problem(space, simulate, zb.SquaredError(measured), name="decay")
# ----------------------------------------------------------------------------------------------


def start(seed):
    random = np.random.default_rng(seed)
    return {"rate": 10 ** random.uniform(-1.5, 0.5), "order": random.uniform(0.6, 2.9)}


def main():
    print(zb.doctor(problem), "\n")
    with zb.Joblib(n_jobs=2, timeout_s=30) as dispatcher:
        print(zb.minimize(problem, max_solves=40, dispatcher=dispatcher, round_width=2), "\n")
    methods = {
        "zo_bilevel": zb.DefaultMethod(),
        "nevergrad:CMA": zb.Nevergrad("CMA"),
        "nevergrad:Cobyla": zb.Nevergrad("Cobyla"),
    }
    seeds, solves = (range(3), 40) if SMALL else (range(10), 100)
    comparison = zb.compare(
        problem, methods, max_solves=solves, seeds=seeds, initial=start, target_loss=1e-6
    )
    print(comparison.table())
    print("picture:", comparison.plot("wrap_your_solver.png"))


if __name__ == "__main__":
    main()
