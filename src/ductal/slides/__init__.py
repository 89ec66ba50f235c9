"""Whole slides: rebuilt from a cohort's patches, or read from a scan."""
