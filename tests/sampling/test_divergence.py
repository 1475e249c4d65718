"""A run that diverges stops, and nothing of it is stored."""
