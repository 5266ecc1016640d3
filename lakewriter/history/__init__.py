"""History: from before the recording, and proof that what is there is right."""
