"""What staff see and do: pages, forms, charts, reports, search, and commands that join folders."""
