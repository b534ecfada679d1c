"""What a run may cost: the range of comparable runs, and asking before it begins."""
