"""``top``: instances, jobs, functions and queues, live in a terminal."""
