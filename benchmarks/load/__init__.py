"""Everything around the measured gateway: load generator, fakes, other gateways."""
