"""At which epochs and steps a sample is drawn."""
