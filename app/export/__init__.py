"""Export room: a trained tagger as files for other runtimes."""
