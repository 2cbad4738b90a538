"""What happened: written, read from the stream, announced to callbacks."""
