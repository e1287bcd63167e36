"""Reading and rewriting compose files."""
