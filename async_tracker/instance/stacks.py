"""What a thread is doing, as lines of text."""

import sys

_FRAMES = 12


def blocking_stack(thread_id: int) -> list[str]:
    """Give the innermost frames of a thread as ``file:line function``, at most 12, the innermost first; no values of variables."""
    frame = sys._current_frames().get(thread_id)
    frames: list[str] = []
    while frame is not None and len(frames) < _FRAMES:
        frames.append(f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return frames
