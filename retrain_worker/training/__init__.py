"""Fine-tuning: labelled images in, the best weights out. docs/training.md shows the way through."""
