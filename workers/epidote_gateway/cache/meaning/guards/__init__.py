"""This package is about the differences between two similar questions that change the answer."""
