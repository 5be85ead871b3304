"""Layers that backbones, necks and heads are made of, and how they are folded after training."""
