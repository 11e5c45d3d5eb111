"""This package is about the custom resources: their fields, their meaning, and what is refused.

Pure: models, validation and the generated CRDs. Nothing here talks to an API server.
"""
