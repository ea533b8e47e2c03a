"""What a bundle is made into for one place to run: engines, a Triton repository, a single file. Needs no torch."""
