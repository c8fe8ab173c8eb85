"""What a user can ask of the engine: one verb per file, its collaborators are its fields (async)."""
