"""Guides of node perturbation: predictions of the error signals that are subtracted as control variates."""
