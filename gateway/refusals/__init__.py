"""Every refusal of the gateway's own: the decision, the status and the words."""
