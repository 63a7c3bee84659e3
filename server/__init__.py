"""The galton command and its HTTP surface."""
