"""One run: the ledger, the loop, the result."""
