"""`make chaos`: real servers on one Redis, faults, and a checker of all that clients saw."""
