"""Slides and trials on a Ray cluster, with the results of one machine; see docs/scale.md."""
