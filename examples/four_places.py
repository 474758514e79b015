"""One program, four places, the same numbers.

python four_places.py                       this machine's cores
python four_places.py slurm                 Slurm, a job array for each round
python four_places.py slurm-here            the same without Slurm: its jobs as processes here
python four_places.py dask                  a Dask cluster on this machine
python four_places.py postgresql://...      workers that come and go, each started by
    ZO_BILEVEL_TOKEN=... zo-bilevel worker postgresql://... four_places.py:problem
"""

import sys
from contextlib import ExitStack

import numpy as np

import zo_bilevel as zb

times = np.linspace(0, 5, 60)


def simulate(phi):
    return np.exp(-phi["damping"] * times) * np.cos(phi["frequency"] * times)


problem = zb.Problem(
    zb.Space(damping=zb.Log(0.01, 10), frequency=zb.Real(0.5, 5)),
    simulate,
    zb.SquaredError(simulate({"damping": 0.3, "frequency": 2.0})),
    name="decay",  # run and workers know it by name and version
    version="1",
)


def dispatcher_at(place, stack):
    if place == "slurm":
        return zb.Slurm("jobs", timeout_min=10)
    if place == "slurm-here":
        return zb.Slurm("jobs", cluster="local", timeout_min=10)
    if place == "dask":
        from dask.distributed import Client, LocalCluster

        local = {"host": "127.0.0.1", "dashboard_address": None}
        cluster = stack.enter_context(LocalCluster(n_workers=2, threads_per_worker=1, **local))
        stack.enter_context(Client(cluster))
        return zb.Joblib(backend="dask", timeout_s=60)
    if place.startswith("postgresql://"):
        return zb.Queue(place)
    return zb.Joblib(n_jobs=2, timeout_s=60)


def main(place="laptop"):
    with ExitStack() as stack:
        result = zb.minimize(
            problem,
            max_solves=24,
            round_width=4,
            dispatcher=stack.enter_context(dispatcher_at(place, stack)),
        )
    for record in result.history:
        print(record.solve, record.role, record.loss.hex())
    print({name: value.hex() for name, value in result.phi.items()}, result.stop_reason)


if __name__ == "__main__":
    main(*sys.argv[1:])
