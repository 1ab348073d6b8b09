"""A middleware that tells the agent how hard to think, and a card that says how much it did."""
