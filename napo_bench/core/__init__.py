"""What every room uses: errors, files, the journal, statistics, paths. It imports nothing else of the project."""
