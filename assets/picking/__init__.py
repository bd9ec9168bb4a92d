"""What selections pick from: documents as a stream, their texts, near-duplicates among them, their records."""
