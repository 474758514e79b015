"""HTTP services as inner solvers."""
