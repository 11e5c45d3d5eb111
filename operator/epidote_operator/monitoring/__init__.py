"""This package is about what people watch: dashboards and alerts, made from the metrics' names."""
