"""Who is alive: evidence in, verdict out."""
