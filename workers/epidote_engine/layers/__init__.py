"""This package is about the pieces that models are built from."""
