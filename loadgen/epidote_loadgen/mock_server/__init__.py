"""This package is about a server that only pretends to think, whose truth is known exactly."""
