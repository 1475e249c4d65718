"""All rows of the zoo."""

from zoo import images, losses, programs, sequences, vectors  # each adds its rows
from zoo.row import ROWS, rows_here

__all__ = ["ROWS", "images", "losses", "programs", "rows_here", "sequences", "vectors"]
