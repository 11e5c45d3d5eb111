"""This package is about judging a planner in simulated time."""
