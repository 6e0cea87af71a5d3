"""Search room: settings by machine. The space, the study that processes share, the trials, and what they found."""
