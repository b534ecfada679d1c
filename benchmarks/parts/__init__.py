"""The gateway with one of its parts replaced by a library, for `benchmarks.network_parts`."""
