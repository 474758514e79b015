"""Find four resistances of an amplifier from its measured frequency response, with ngspice.

Wraps a command-line program: ngspice reads a netlist written from a template and prints a table.
Needs: apt-get install ngspice; pip install "zo-bilevel[command,baselines,plot]"
"""

import os
import shutil
import sys

import numpy as np

import zo_bilevel as zb
from zo_bilevel.adapters import CommandLine, ReadPattern

SMALL = os.environ.get("ZO_BILEVEL_EXAMPLE_BUDGET") == "small"
if shutil.which("ngspice") is None:
    print("ngspice is not on the PATH: apt-get install --no-install-recommends ngspice")
    sys.exit(0)

NETLIST = """common-emitter amplifier
vcc vcc 0 12
vin in 0 dc 0 ac 1
cin in base 10u
rb1 vcc base {{ rb1 }}
rb2 base 0 {{ rb2 }}
rc vcc collector {{ rc }}
re emitter 0 {{ re }}
q1 collector base emitter transistor
cout collector out 10u
rload out 0 100k
.model transistor npn(is=1e-15 bf=150 vaf=80 cje=5p cjc=3p tf=0.4n)
.ac dec 5 10 1meg
.options reltol=1e-6 numdgt=10
.print ac vdb(out)
.end
"""
simulate = CommandLine(
    ["ngspice", "-b", "amplifier.cir"],
    files={"amplifier.cir": NETLIST},
    output=ReadPattern(r"^\d+\s+\S+\s+(\S+)\s*$"),  # the third column of its table
    expected_length=26,
    timeout_s=10,
)
truth = {"rb1": 47e3, "rb2": 10e3, "rc": 4.7e3, "re": 1e3}
space = zb.Space(
    rb1=zb.Log(1e3, 1e6), rb2=zb.Log(1e3, 1e6), rc=zb.Log(1e2, 1e5), re=zb.Log(1e2, 1e5)
)
gains_db = simulate(truth)  # stands for the measurement
problem = zb.Problem(space, simulate, zb.SquaredError(gains_db), name="amplifier")


def start(seed):
    random = np.random.default_rng(seed)
    return {name: value * 10 ** random.uniform(-0.3, 0.3) for name, value in truth.items()}


def main():
    methods = {
        "zo_bilevel": zb.DefaultMethod(),
        "nevergrad:CMA": zb.Nevergrad("CMA"),
        "nevergrad:Cobyla": zb.Nevergrad("Cobyla"),
    }
    comparison = zb.compare(
        problem,
        methods,
        max_solves=40 if SMALL else 150,
        seeds=range(3 if SMALL else 5),
        initial=start,
        target_loss=1e-2,  # a tenth of a decibel
    )
    best = min(comparison.runs, key=lambda run: run.loss)
    found = ", ".join(f"{name} {value:.0f}" for name, value in best.phi.items())
    print(f"best of all, {best.method}: {found} ohm (made with 47000, 10000, 4700, 1000)\n")
    print(comparison.table())
    print("picture:", comparison.plot("amplifier.png"))


if __name__ == "__main__":
    main()
