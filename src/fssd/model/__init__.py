"""Networks: put together from a backbone, a neck and a head."""
