"""Networks trained elsewhere, whose features training and scoring look at."""
