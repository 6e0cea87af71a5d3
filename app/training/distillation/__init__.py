"""Training room: distillation, a small network learns from the answers of large ones."""
