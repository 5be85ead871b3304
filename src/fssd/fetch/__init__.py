"""Fetching the official data sets: a table of archives, resumed downloads, checksums, safe unpacking."""
