"""This package is about the vocabulary that every part of Epidote shares; standard library only."""
