"""The admin's first page: who is limited, what was used, and what needs attention."""
