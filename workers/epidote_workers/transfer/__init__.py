"""This package is about moving KV blocks and embeddings from one worker's pool to another's."""
