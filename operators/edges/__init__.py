"""Python only: records become columns, and columns become outputs."""
