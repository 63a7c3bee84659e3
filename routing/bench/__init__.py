"""What routing costs and does, measured: each module prints or draws what README.md shows."""
