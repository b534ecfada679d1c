"""The one way out of the sandbox: a relay to the gateway, for the paths of one product."""
