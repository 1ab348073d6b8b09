"""`make bench`: what a delivered frame costs, side by side with other ways to send it."""
