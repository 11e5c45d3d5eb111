"""This package is about what requests say: payloads made on the fly, equal for equal seeds."""
