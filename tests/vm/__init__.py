"""A virtual machine with Debian's kernel, for what this machine's kernel cannot do."""
