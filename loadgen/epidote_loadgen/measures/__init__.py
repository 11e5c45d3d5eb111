"""This package is about figures made from records: histograms and summaries that merge exactly."""
