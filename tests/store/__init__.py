"""The transitions, one by one, on a real server."""
