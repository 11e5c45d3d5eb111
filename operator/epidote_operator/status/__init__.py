"""This package is about what is known and told of a service: its fleet, conditions, decisions.

Pure: no clock, no I/O.
"""
