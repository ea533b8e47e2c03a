"""What the operating system gives and refuses: files, locks, other file systems, memory, signals, the machine."""
