"""Linear and mixed-integer programs as inner solvers."""
