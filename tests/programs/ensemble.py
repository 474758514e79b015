"""A calibration by libEnsemble: two local workers simulate, GestGenerator suggests."""

import numpy as np
from gest_api.vocs import VOCS
from libensemble import Ensemble
from libensemble.alloc_funcs.start_only_persistent import only_persistent_gens
from libensemble.specs import AllocSpecs, ExitCriteria, GenSpecs, LibeSpecs, SimSpecs

import zo_bilevel as zb
from zo_bilevel.bridges.gest import GestGenerator

TIMES = np.linspace(0.0, 3.0, 20)


def simulate(points, _, sim_specs):
    found = np.zeros(len(points), dtype=sim_specs["out"])
    for row, point in zip(found, points, strict=True):
        row["y"] = point["size"] * np.exp(-point["rate"] * TIMES)
    return found


if __name__ == "__main__":
    vocs = VOCS(
        variables={"size": [0.0, 6.0], "rate": [0.01, 10.0]},
        observables={"y": (float, (20,))},
    )
    generator = GestGenerator(
        vocs, outer=zb.SquaredError({"y": 2.0 * np.exp(-0.7 * TIMES)}), num_workers=2
    )
    ensemble = Ensemble(
        libE_specs=LibeSpecs(
            nworkers=2,
            comms="local",
            gen_on_manager=True,
            disable_log_files=True,
            save_H_and_persis_on_abort=False,
        ),
        gen_specs=GenSpecs(
            generator=generator,
            vocs=vocs,
            initial_batch_size=2,
            batch_size=2,
            persis_in=["sim_id", "size", "rate", "y"],
        ),
        sim_specs=SimSpecs(sim_f=simulate, inputs=["size", "rate"], outputs=[("y", float, (20,))]),
        alloc_specs=AllocSpecs(alloc_f=only_persistent_gens),
        exit_criteria=ExitCriteria(sim_max=32),
    )
    history, _, flag = ensemble.run()
    assert flag == 0, flag
    print(int(history["sim_ended"].sum()), generator.best["size"], generator.best["rate"])
