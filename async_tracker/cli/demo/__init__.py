"""``async-tracker demo``: real workers, real jobs, a real kill, and a count of what was lost.

`show` tells the story, on a `stage` (server, workers), with a `load` of jobs; `kill` is its main act; the jobs (`worker`) write a
`ledger`, by which the end is judged; a `screen` shows it.
"""
