"""This package is about a node agent that runs pods as local processes."""
