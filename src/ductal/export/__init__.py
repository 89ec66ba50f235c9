"""Finished runs as files that other programs load, each checked against the run before it is kept."""
