"""What stands around the gateway while it is measured: load generator, fakes, other gateways."""
