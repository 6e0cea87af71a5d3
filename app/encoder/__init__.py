"""Encoder room."""
