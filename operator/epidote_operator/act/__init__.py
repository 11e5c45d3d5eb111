"""This package is about acting: performing a plan in a safe order, every step idempotent."""
