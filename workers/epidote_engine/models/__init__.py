"""This package is about whole language models."""
