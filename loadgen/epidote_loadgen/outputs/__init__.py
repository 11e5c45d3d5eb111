"""This package is about what a run leaves behind: JSON, CSV, Parquet, JUnit XML."""
