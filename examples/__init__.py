"""Apps that build on Webchat, each installed by examples/settings.py and read in a minute."""
