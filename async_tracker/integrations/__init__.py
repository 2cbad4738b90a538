"""One package per worker library; each knows its library and the floors below, nothing else."""
