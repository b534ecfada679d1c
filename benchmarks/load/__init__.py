"""The load generator, the fake upstream and the servers around the gateway that is measured."""
