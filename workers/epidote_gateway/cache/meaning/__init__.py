"""This package is about what questions mean: vectors, categories, guards, calibrated thresholds."""
