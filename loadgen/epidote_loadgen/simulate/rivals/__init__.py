"""This package is about the rules that Epidote's planner is measured against.

Each is a factory: from its parameters to a `Policy`, the signature the planner has in the
simulator. Their parameters go through the same search as ours.
"""
