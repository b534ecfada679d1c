"""What stopping means: the rows that end, and the notices that are withheld."""
