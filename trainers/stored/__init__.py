"""Preference rows as they are stored: parquet files, and one copy of their content for random access."""
