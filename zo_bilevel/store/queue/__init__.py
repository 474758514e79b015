"""A queue of solves in a database, for workers that come and go."""
