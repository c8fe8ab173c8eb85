"""Networks: address management, the default bridge, sandboxes, and a container's files in /etc (blocking and pure)."""
