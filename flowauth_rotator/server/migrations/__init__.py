"""The migrations of the database schema, one file per version."""
