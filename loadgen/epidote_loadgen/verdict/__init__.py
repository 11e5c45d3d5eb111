"""This package is about judging a run: how sure an attainment is, and what follows from it."""
