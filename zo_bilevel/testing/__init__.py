"""Conformance suites and faulty inner solvers, for this package's tests and for users' own."""
