"""A data set as tar files of pictures (shards) and an index that is mapped into memory."""
