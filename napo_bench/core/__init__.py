"""What every room uses: errors, files, the journal, statistics, paths. This room imports nothing else of the
project.
"""
