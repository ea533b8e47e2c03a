"""Engines side by side: speed, latency, memory, load time and closeness to the golden pictures."""
