"""SSD's head: class scores and box offsets for every prior (default) box."""
