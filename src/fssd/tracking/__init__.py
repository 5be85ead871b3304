"""Objects followed through the frames of a film: ByteTrack (Zhang et al., ECCV 2022), and counts of them."""
