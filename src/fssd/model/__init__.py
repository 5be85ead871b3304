"""The networks: backbones, fusion, pyramid, heads, priors."""
