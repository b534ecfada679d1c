"""Every refusal of ours: who decides, with which status and which words."""
