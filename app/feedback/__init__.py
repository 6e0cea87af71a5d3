"""Feedback room: what people say about answers, what waits for their review, and which version goes live."""
