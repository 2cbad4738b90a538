"""What happened: written, followed in the stream, told to callbacks."""
