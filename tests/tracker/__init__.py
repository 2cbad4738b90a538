"""`Tracker` as its users hold it: in any asyncio code, on a real server."""
