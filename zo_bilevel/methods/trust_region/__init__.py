"""The trust region: the default where only a loss is seen."""
