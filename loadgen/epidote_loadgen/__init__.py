"""This package is about the load generator and its workloads."""
