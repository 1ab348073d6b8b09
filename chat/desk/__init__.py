"""The operator's desk: what the admin pages, the debug API and commands show and do alike."""
