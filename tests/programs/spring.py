"""A mass on a spring with a damper, as an FMI 2 co-simulation unit made by pythonfmu."""

import time

from pythonfmu import Boolean, Fmi2Causality, Fmi2Slave, Fmi2Variability, Integer, Real, String


class Spring(Fmi2Slave):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.k, self.c, self.x, self.v = 4.0, 0.2, 1.0, 0.0
        self.substeps, self.crossings = 10, 0
        self.frozen, self.mode = False, "normal"
        given = {"causality": Fmi2Causality.parameter, "variability": Fmi2Variability.tunable}
        self.register_variable(Real("k", **given))
        self.register_variable(Real("c", **given))
        self.register_variable(Integer("substeps", **given))
        self.register_variable(Boolean("frozen", **given))
        self.register_variable(String("mode", **given))
        self.register_variable(Real("x", causality=Fmi2Causality.output))
        self.register_variable(Real("v", causality=Fmi2Causality.output))
        self.register_variable(Integer("crossings", causality=Fmi2Causality.output))

    def do_step(self, current_time, step_size):
        if self.mode == "raise":
            raise RuntimeError("the spring broke")
        if self.mode == "slow":
            time.sleep(0.05)
        step = step_size / self.substeps
        for _ in range(0 if self.frozen else self.substeps):
            self.v += step * (-self.k * self.x - self.c * self.v)
            before, self.x = self.x, self.x + step * self.v
            self.crossings += before * self.x < 0
        return True
