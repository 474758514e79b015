"""One solve and how rounds of them are run."""
