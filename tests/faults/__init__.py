"""What can happen to a server: each fault several times, with clients on it. `make faults`."""
