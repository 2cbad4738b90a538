"""Spans and numbers of the runs of this process, for OpenTelemetry, with the extra ``otel``. Not loaded unless a tracker is told to."""
