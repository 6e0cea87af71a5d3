"""Export room: a trained model as files for other runtimes."""
