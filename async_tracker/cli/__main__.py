"""``python -m async_tracker.cli`` does what ``async-tracker`` does."""

from async_tracker.cli import main

if __name__ == "__main__":
    main()
