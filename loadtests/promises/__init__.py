"""What a server promises its operators, measured from outside: `make promises`."""
