"""What routing costs and what it saves: Galton beside stock vLLM, or beside itself."""
