"""A grid of runs, executed in jobs."""
