"""What selections pick from: documents as a stream, their texts, near-duplicates among them, their records.

What belongs here: reading and writing around the picking. What does not: ranking (``assets/methods/``).
"""
