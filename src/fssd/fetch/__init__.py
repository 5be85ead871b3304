"""Getting the official data sets: a table of archives, resumed downloads, checksums, careful unpacking."""
