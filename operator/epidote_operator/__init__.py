"""This package is about the kopf operator."""
