"""This package is about one run as a page: self-contained HTML with plots, no network."""
