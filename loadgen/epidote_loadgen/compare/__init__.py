"""This package is about two runs: what differs, and whether that is more than chance."""
