"""The examination of a set-up: what is wrong, and how to repair it. For every program: the command line and a web page."""
