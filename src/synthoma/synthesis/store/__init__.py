"""What a synthesis leaves on disk: manifest, overlays, cases; and how it is read back."""
