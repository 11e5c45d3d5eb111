"""This package is about what a run cost and how the fleet followed: GPU time, recovery, bound."""
