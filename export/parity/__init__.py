"""Whether a graph computes what its network computes, and the golden cases that say so anywhere."""
