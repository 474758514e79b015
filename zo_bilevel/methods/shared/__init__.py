"""What several methods use: starts, orders of exploration, discrete neighbours."""
