"""Hyper-parameter search: many trials of one recipe on validation patients, the best written out as a recipe."""
