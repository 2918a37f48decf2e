"""Where the jobs of a sweep run: here, on Slurm, or under another scheduler."""
