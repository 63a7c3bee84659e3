"""What a server is sent that nobody should send it, and what it must then do."""
