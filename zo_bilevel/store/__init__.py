"""What a run remembers on disk, so that nothing paid for is lost."""
