"""This package is about the one YAML file that says a whole run: read, checked, made a plan."""
