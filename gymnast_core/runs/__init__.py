"""What a run leaves, and how it comes back."""
