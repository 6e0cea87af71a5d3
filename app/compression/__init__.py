"""Compression room: the steps that make a tagger smaller; the only room that knows TensorFlow Model Optimization."""
