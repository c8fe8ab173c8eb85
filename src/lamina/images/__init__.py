"""Images by id, their tags, and archives of them (blocking)."""
