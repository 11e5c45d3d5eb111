"""This package is about the OpenAI-compatible front door; it knows neither Ray nor torch."""
