"""Sessions: who runs which inference, and what the model remembers. Knows nothing of transport."""
