"""The graph pass: lift every BatchNormalization to an affine map, find who can absorb it, say why not."""
