"""Evaluation room: tags in, spans, scores, error lists and reports out.

Everything here works on plain lists of IOB2 tags, one inner list a sentence, so that a Keras model, a
SavedModel and a TFLite file are scored by the same lines of code. The functions return values and
strings; the modes write them into the run directory.
"""
