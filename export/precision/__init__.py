"""Other precisions of a bundle: made, measured against fp32, and refused below their floor. Needs no torch."""
