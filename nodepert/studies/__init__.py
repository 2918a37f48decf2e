"""Runs: defined, executed, saved and found again."""
