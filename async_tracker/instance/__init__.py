"""What runs inside one worker process: it registers, beats, reports runs, writes, waits, and speaks when it is blocked."""
