"""The bundled demo checkpoint: the data it learns from, its training and its evaluation."""
