"""This package is about the inference engine; it knows neither Ray nor HTTP."""
