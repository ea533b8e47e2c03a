"""Runs: the loops that train DAMSM, generators and judges, their steps, folders and checkpoints."""
