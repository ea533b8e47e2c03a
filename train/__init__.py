"""Training: networks, losses, data, and the DAMSM, GAN and judge loops. Needs the `train` extra."""
