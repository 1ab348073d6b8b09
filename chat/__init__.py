"""Transport: numbered frames, the live log, sockets and HTTP. Knows of sessions only by ports."""
