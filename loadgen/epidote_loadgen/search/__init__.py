"""This package is about finding the highest rate at which a promise still holds."""
