"""This package is about answering a request from an earlier answer, or not at all when in doubt."""
