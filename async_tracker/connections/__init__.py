"""The way to Redis: whose client, the connection of an instance, raw calls and raw replies."""
