"""Command-line programs as inner solvers."""
