"""This package is about Triton kernels, each beside its plain-torch twin."""
