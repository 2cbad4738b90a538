"""arq's own worker under our hooks, as its command runs it, on a real server."""
