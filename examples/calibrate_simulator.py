"""Calibrate a simulator: from its input deck to a figure (docs/calibrate-a-simulator.md).

A pumping test at Oude Korendijk: 788 m3/d from a confined aquifer, drawdowns in two wells at 30 and
90 m (Wit, 1963; Kruseman and de Ridder, "Analysis and Evaluation of Pumping Test Data", 1990, table
3.2). The simulator, aquifer.awk, reads a deck of fixed columns and writes a block for each well.

Needs: awk; pip install "zo-bilevel[command,report,plot]"
"""

import shutil
import sys
from pathlib import Path

import numpy as np

import zo_bilevel as zb
from zo_bilevel.adapters import CommandLine, ReadColumns

if shutil.which("awk") is None:
    print("awk is not on the PATH")
    sys.exit(0)

# --- the measurements ----------------------------------------------------------------------------
HERE = Path(__file__).parent
rows = [line.split(",") for line in (HERE / "oude_korendijk.csv").read_text().splitlines()[1:]]
minutes, metres = (
    {well: np.array([float(row[k]) for row in rows if row[0] == well]) for well in ("H30", "H90")}
    for k in (1, 2)
)

# --- the deck, with a field where each parameter stands ------------------------------------------
DECK = """Oude Korendijk
     788.0{{ transmissivity | width(10) }}{{ storage | width(10) }}{{ resistance | width(10) }}
         2
H30             30.0
H90             90.0
"""


def read_well(well):
    """The block of a well in the output file, at the minutes of its measurements."""
    block = ReadColumns("aquifer.out", columns=[0, 1], block=f"DRAWDOWN IN WELL {well}")

    def read(run):
        t, s = block(run).T
        return np.interp(np.log(minutes[well]), np.log(t), s)

    return read


simulate = CommandLine(
    ["awk", "-f", (HERE / "aquifer.awk").absolute(), "aquifer.dat"],
    files={"aquifer.dat": DECK},
    output={well: read_well(well) for well in minutes},
    required_output="NORMAL END",
    timeout_s=10,
)
space = zb.Space(
    transmissivity=zb.Log(10, 10_000),  # m2/d
    storage=zb.Log(1e-6, 1e-1),
    resistance=zb.Log(1, 1e6),  # of the leaky layer, d
)
problem = zb.Problem(space, simulate, zb.SquaredError(metres), name="oude-korendijk")


def main():
    result = zb.minimize(problem, max_solves=60, ftol=1e-5)  # smaller gains are not worth a solve
    print(result, "\n")
    found = result.uncertainty(problem)
    print(found, "\n")
    result.plot("calibrate_simulator.svg", x=minutes, uncertainty=found)
    result.to_html("calibrate_simulator.html", x=minutes, uncertainty=found)
    deck = simulate.write(result.phi, "calibrated") / "aquifer.dat"
    print(deck.read_text())


if __name__ == "__main__":
    main()
