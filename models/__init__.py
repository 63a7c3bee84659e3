"""What a checkpoint is: the demo model, its data, training and evaluation."""
