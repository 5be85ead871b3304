"""How fast a detector is on the machine at hand, stage by stage, and how near the machine's own limit."""
