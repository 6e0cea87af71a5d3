"""Training room: strategy, optimizer and schedule, the one fit loop, checkpoints and resume."""
