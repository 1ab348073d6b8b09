"""An installed app whose events are what the prompt says, as JSON."""
