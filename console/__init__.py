"""What staff see and do: pages, forms, charts, reports, search, and commands across folders."""
