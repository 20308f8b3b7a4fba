"""Ways to combine the updates of a round, one per file."""
