"""This package is about the service's own view beside the load: replicas, switches, decisions."""
