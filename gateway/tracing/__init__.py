"""The trace of each call: its interface, and the traces of OpenTelemetry."""
