"""This package is about the decision which worker does what, as one pure function."""
