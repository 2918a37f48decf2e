"""Where the jobs of a sweep are carried out: here, in worker processes, on Slurm, or by another scheduler."""
