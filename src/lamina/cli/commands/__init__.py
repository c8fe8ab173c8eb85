"""The commands, a family per module; each is imported only when it is called."""
