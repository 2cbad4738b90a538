"""Know what every async worker is doing, and never lose a job to a crash."""

__version__ = "0.1.0"
