"""Models that come with the package, with their card and two photographs to try them on."""
