"""This package is about the shell that joins engine, gateway and Ray Serve into a fleet."""
