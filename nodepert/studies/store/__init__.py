"""Files of runs on disk: records, locks, rows and checkpoints."""
