"""What is counted, as metrics: for Prometheus, with the extra ``prometheus``."""
