"""This package is about talking to a Kubernetes API server: credentials, requests, watches."""
