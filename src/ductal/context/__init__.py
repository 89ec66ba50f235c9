"""Neighbours on the slide's grid improve the call of a patch: heads over a patch model that stays as it is."""
