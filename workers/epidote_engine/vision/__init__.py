"""This package is about pictures and videos becoming rows that a language model can read."""
